//! The meta leader's side of the catalogue lease: what it granted, what it was told, and from when on nobody can decide without a
//! fence any more.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use proffer_engine::keys::Revision;
use proffer_engine::time::Timestamp;

use super::{Grant, Renew, Report};
use crate::limits::{CLOCK_OFF_MS, LEASE_FENCES_MAX};

/// Everything it knows is in memory: the next leader begins with nothing, and waits.
#[derive(Debug)]
pub(crate) struct Granter {
    lease_ms: u32,
    leads: bool,
    /// When it last began to lead; what others granted before was asked for before that.
    led_since: Option<Duration>,
    nodes: BTreeMap<u64, Node>,
}

/// What the clocks of the nodes say of the leader's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Clocks {
    /// It is cluster time.
    Right,
    /// Too few have said what they show.
    TooFewHeard,
    /// Most have, but they disagree, and the others have not been heard for a lease.
    Disagreeing,
    /// It is so many milliseconds ahead of most others': too many.
    Off(i64),
}

/// What is known of one node.
#[derive(Debug, Default)]
struct Node {
    boots: u64,
    /// The newest revision that it reported.
    in_force: Revision,
    /// The fences that were named to it, rising, each with the last grant that did.
    named: VecDeque<(Revision, Duration)>,
    /// What its clock showed, and when that came.
    wall: Option<(Timestamp, Duration)>,
}

impl Granter {
    /// One that grants leases of so many milliseconds, once it leads.
    pub(crate) fn new(lease_ms: u32) -> Self {
        Granter { lease_ms, leads: false, led_since: None, nodes: BTreeMap::new() }
    }

    /// It leads from now on, which is after the first entry of its own term was committed.
    pub(crate) fn lead(&mut self, now: Duration) {
        *self = Granter { leads: true, led_since: Some(now), ..Granter::new(self.lease_ms) };
    }

    /// It does not lead any more, and grants nothing. What it granted and heard remains true: whoever leads next knows every fence
    /// that was committed before, and names it.
    pub(crate) fn stop(&mut self) {
        self.leads = false;
    }

    /// Grants what was asked for, and notes it: only then may the answer go. It must be certain that this was the leader at some
    /// instant after the question came.
    pub(crate) fn grant(
        &mut self,
        renew: &Renew,
        (revision, fence): (Revision, Revision),
        wall: Timestamp,
        now: Duration,
    ) -> Option<Grant> {
        if !self.leads {
            return None;
        }
        let window = self.window();
        let node = self.hear(renew.report)?;
        match node.named.back_mut() {
            Some((named, at)) if *named >= fence => *at = now,
            Some(_) | None => node.named.push_back((fence, now)),
        }
        while node.named.front().is_some_and(|(_, at)| *at + window <= now) {
            node.named.pop_front();
        }
        if node.named.len() > LEASE_FENCES_MAX {
            // The oldest two count as one that named less and was granted later.
            let (named, _) = node.named.pop_front().expect("there are more");
            node.named.front_mut().expect("there are more").0 = named;
        }
        Some(Grant { fence, revision, wall, lease_ms: self.lease_ms })
    }

    /// A node has said what its clock shows. What was long under way makes a clock seem slow: of all that came within a lease the one that is
    /// furthest on holds.
    pub(crate) fn showed(&mut self, renew: &Renew, now: Duration) {
        let window = self.window();
        let Some(node) = self.hear(renew.report) else { return };
        let earlier = node.showed_lately(window, now).map(|(wall, at)| wall.plus_ms(millis(now.saturating_sub(at))));
        if earlier.is_none_or(|earlier| earlier <= renew.wall) {
            node.wall = Some((renew.wall, now));
        }
    }

    /// A node says what is in force there.
    pub(crate) fn reported(&mut self, report: Report) {
        self.hear(report);
    }

    /// The node of a report, unless it comes from an earlier start than is known.
    fn hear(&mut self, report: Report) -> Option<&mut Node> {
        let node = self.nodes.entry(report.node).or_default();
        if report.boots < node.boots {
            return None;
        }
        if report.boots > node.boots {
            // What the earlier start reported, and was granted, went with it.
            *node = Node { boots: report.boots, ..Node::default() };
        }
        node.in_force = node.in_force.max(report.in_force);
        Some(node)
    }

    /// Until when a node might decide without a fence that is committed, as far as is known now; `None` if none can. `nodes` are all
    /// that were ever let in. O(nodes).
    pub(crate) fn may_decide_without(&self, fence: Revision, nodes: &[u64], now: Duration) -> Option<Duration> {
        let window = self.window();
        let Some(led_since) = self.led_since else { return Some(Duration::MAX) };
        let others = nodes.iter().filter(|id| !self.nodes.contains_key(id)).map(|_| led_since);
        let known = self.nodes.values().filter(|node| node.in_force < fence).map(|node| {
            let without = node.named.iter().rev().find(|(named, _)| *named < fence);
            without.map_or(led_since, |(_, at)| (*at).max(led_since))
        });
        others.chain(known).max().map(|last| last + window).filter(|until| *until > now)
    }

    /// The nodes that may hold a lease and have not reported `revision`. O(nodes).
    pub(crate) fn lacking(&self, revision: Revision, nodes: &[u64], now: Duration) -> Vec<u64> {
        let window = self.window();
        let is_new = self.led_since.is_none_or(|since| since + window > now);
        let strangers = nodes.iter().copied().filter(|id| is_new && !self.nodes.contains_key(id));
        let holds = |node: &Node| is_new || node.named.back().is_some_and(|(_, at)| *at + window > now);
        let lags = self.nodes.iter().filter(|(_, node)| node.in_force < revision && holds(node));
        let mut lacking: Vec<u64> = strangers.chain(lags.map(|(id, _)| *id)).collect();
        lacking.sort_unstable();
        lacking
    }

    /// What the clocks of the group's `voters` that reported lately say of the leader's, whose own node is among them. Where all are heard and
    /// no time is that of most, the median counts. O(voters²).
    pub(crate) fn clocks(&self, own_wall: Timestamp, voters: &[u64], now: Duration) -> Clocks {
        let ahead = self.ahead(own_wall, voters, now);
        if ahead.len() * 2 <= voters.len() && !voters.is_empty() {
            return Clocks::TooFewHeard;
        }
        let most_show = |clock: i64| {
            let like_it = ahead.iter().filter(|other| clock.abs_diff(**other) <= CLOCK_OFF_MS.unsigned_abs());
            like_it.count() * 2 > voters.len()
        };
        if voters.is_empty() || most_show(0) {
            return Clocks::Right;
        }
        if let Some(off_ms) = ahead.iter().copied().filter(|clock| most_show(*clock)).min_by_key(|clock| clock.abs()) {
            return Clocks::Off(off_ms);
        }
        let is_new = self.led_since.is_none_or(|since| since + self.window() > now);
        match ahead.len() == voters.len() {
            true => off_by(&ahead).map_or(Clocks::Right, Clocks::Off),
            false if is_new => Clocks::TooFewHeard,
            false => Clocks::Disagreeing,
        }
    }

    /// By how many milliseconds the leader's clock is ahead of each of these that was reported lately, rising.
    fn ahead(&self, own_wall: Timestamp, voters: &[u64], now: Duration) -> Vec<i64> {
        let window = self.window();
        let reported = voters.iter().filter_map(|voter| self.nodes.get(voter)?.showed_lately(window, now));
        let ahead =
            reported.map(|(wall, at)| own_wall.0.saturating_sub(wall.0.saturating_add(millis(now.saturating_sub(at)))));
        let mut ahead: Vec<i64> = ahead.collect();
        ahead.sort_unstable();
        ahead
    }

    /// How long after a grant its holder may go on, on a clock that is 5 % fast.
    fn window(&self) -> Duration {
        Duration::from_millis(u64::from(self.lease_ms)) * 105 / 100
    }
}

impl Node {
    fn showed_lately(&self, window: Duration, now: Duration) -> Option<(Timestamp, Duration)> {
        self.wall.filter(|(_, at)| *at + window > now)
    }
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

/// By how much a clock that is so far ahead of each is off from the median of them, if that is too much.
fn off_by(ahead: &[i64]) -> Option<i64> {
    // Of an even number both in the middle are as good as each other: the nearer one counts.
    let (low, high) = (*ahead.get(ahead.len().checked_sub(1)? / 2)?, *ahead.get(ahead.len() / 2)?);
    let off = if low > 0 { low } else { high.min(0) };
    (off.abs() > CLOCK_OFF_MS).then_some(off)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn report(node: u64, boots: u64, in_force: u64) -> Report {
        Report { node, boots, in_force: Revision(in_force) }
    }

    fn renew(node: u64, in_force: u64, wall: i64) -> Renew {
        Renew { report: report(node, 1, in_force), wall: Timestamp(wall) }
    }

    /// A leader since long ago.
    fn leader() -> Granter {
        let mut granter = Granter::new(2_000);
        granter.lead(ms(0));
        granter
    }

    fn grant(granter: &mut Granter, node: u64, in_force: u64, fence: u64, now: u64) {
        let told = (Revision(100), Revision(fence));
        let granted = granter.grant(&renew(node, in_force, 0), told, Timestamp(5), ms(now));
        let expected = Grant { fence: Revision(fence), revision: Revision(100), wall: Timestamp(5), lease_ms: 2_000 };
        assert_eq!(granted, Some(expected));
    }

    fn without(granter: &Granter, fence: u64, now: u64) -> Option<Duration> {
        granter.may_decide_without(Revision(fence), &[1, 2], ms(now))
    }

    #[test]
    fn nobody_decides_without_a_fence_once_each_has_reported_it() {
        let mut granter = leader();
        grant(&mut granter, 1, 3, 3, 10_000);
        grant(&mut granter, 2, 3, 3, 10_000);
        assert_eq!(without(&granter, 3, 10_000), None);
        assert_eq!(without(&granter, 7, 10_000), Some(ms(12_100)));
        granter.reported(report(1, 1, 7));
        assert_eq!(without(&granter, 7, 10_001), Some(ms(12_100)), "the other has not");
        granter.reported(report(2, 1, 8));
        assert_eq!(without(&granter, 7, 10_001), None);
    }

    #[test]
    fn a_node_is_waited_for_since_the_last_grant_that_did_not_name_the_fence() {
        let mut granter = leader();
        grant(&mut granter, 1, 9, 3, 10_000);
        grant(&mut granter, 2, 0, 3, 10_000);
        grant(&mut granter, 2, 0, 3, 10_300);
        grant(&mut granter, 2, 0, 7, 10_600);
        grant(&mut granter, 2, 0, 8, 10_900);
        assert_eq!(without(&granter, 7, 11_000), Some(ms(12_400)));
        assert_eq!(without(&granter, 8, 11_000), Some(ms(12_700)));
        assert_eq!(without(&granter, 9, 11_000), Some(ms(13_000)));
        assert_eq!(without(&granter, 7, 12_400), None, "though it still renews, and has not reported");
    }

    #[test]
    fn a_new_leader_waits_for_what_others_may_have_granted() {
        let mut granter = leader();
        grant(&mut granter, 1, 3, 3, 10_000);
        granter.lead(ms(20_000));
        assert_eq!(without(&granter, 3, 20_001), Some(ms(22_100)), "nobody has reported to it");
        granter.reported(report(1, 1, 3));
        assert_eq!(without(&granter, 3, 20_001), Some(ms(22_100)), "node 2 has not");
        grant(&mut granter, 2, 0, 3, 20_002);
        assert_eq!(without(&granter, 3, 20_003), Some(ms(22_100)), "it was named to it, but the answer may be lost");
        assert_eq!(without(&granter, 3, 22_100), None);
        assert_eq!(Granter::new(2_000).may_decide_without(Revision(1), &[], ms(1 << 40)), Some(Duration::MAX));
    }

    #[test]
    fn a_node_that_the_roster_does_not_name_is_waited_for_if_it_was_granted_a_lease() {
        let mut granter = leader();
        grant(&mut granter, 9, 0, 3, 10_000);
        assert_eq!(granter.may_decide_without(Revision(4), &[], ms(10_000)), Some(ms(12_100)));
    }

    #[test]
    fn what_an_earlier_start_of_a_node_reported_says_nothing_of_a_later_one() {
        let mut granter = leader();
        grant(&mut granter, 1, 9, 3, 10_000);
        grant(&mut granter, 2, 9, 3, 10_000);
        let restarted = Renew { report: report(2, 2, 0), wall: Timestamp(0) };
        assert!(granter.grant(&restarted, (Revision(3), Revision(3)), Timestamp(0), ms(10_100)).is_some());
        granter.reported(report(2, 1, 9));
        assert_eq!(without(&granter, 9, 10_100), Some(ms(12_200)));
        assert!(granter.grant(&renew(2, 9, 0), (Revision(3), Revision(3)), Timestamp(0), ms(10_200)).is_none());
    }

    #[test]
    fn who_does_not_lead_grants_nothing_and_still_knows_what_it_granted() {
        let mut granter = leader();
        grant(&mut granter, 1, 9, 3, 10_000);
        grant(&mut granter, 2, 3, 3, 10_000);
        granter.stop();
        assert!(granter.grant(&renew(1, 9, 0), (Revision(3), Revision(3)), Timestamp(0), ms(10_001)).is_none());
        assert_eq!(without(&granter, 7, 10_001), Some(ms(12_100)));
        assert_eq!(without(&granter, 7, 12_100), None);
    }

    #[test]
    fn more_fences_than_are_kept_make_the_wait_longer_and_never_shorter() {
        let mut granter = leader();
        let many = LEASE_FENCES_MAX as u64 + 20;
        grant(&mut granter, 1, 1_000, 0, 10_000);
        for fence in 1..=many {
            grant(&mut granter, 2, 0, fence, 10_000 + fence);
        }
        assert!(granter.nodes[&2].named.len() <= LEASE_FENCES_MAX);
        for fence in 2..=many + 1 {
            let until = without(&granter, fence, 10_000 + many).unwrap();
            assert!(until >= ms(12_100 + fence - 1), "{fence}: {until:?}");
            assert!(until <= ms(12_100 + many), "{fence}: {until:?}");
        }
    }

    #[test]
    fn who_holds_a_lease_and_lacks_a_revision_is_told_apart() {
        let mut granter = leader();
        granter.lead(ms(10_000));
        assert_eq!(granter.lacking(Revision(5), &[1, 2], ms(10_001)), [1, 2], "either may hold an earlier leader's");
        grant(&mut granter, 1, 5, 0, 11_000);
        grant(&mut granter, 2, 4, 0, 11_000);
        assert_eq!(granter.lacking(Revision(5), &[1, 2, 3], ms(12_000)), [2, 3]);
        assert_eq!(granter.lacking(Revision(5), &[1, 2, 3], ms(12_101)), [2], "the third never asked this leader");
        assert_eq!(granter.lacking(Revision(5), &[1, 2, 3], ms(13_100)), [] as [u64; 0], "its lease has run out");
    }

    /// A leader since `since`, and what nodes 1, 2, 3 … said then that their clocks show.
    fn told(walls: &[i64], since: u64) -> Granter {
        let mut granter = leader();
        granter.lead(ms(since));
        for (node, wall) in (1..).zip(walls) {
            granter.showed(&renew(node, 0, *wall), ms(10_000));
        }
        granter
    }

    #[test]
    fn a_clock_is_off_when_most_others_say_so() {
        let clocks = |walls: &[i64], own: i64| {
            let voters: Vec<u64> = (1..).take(walls.len()).collect();
            told(walls, 0).clocks(Timestamp(own + 100), &voters, ms(10_100))
        };
        assert_eq!(clocks(&[], 5), Clocks::Right, "whoever founds is alone");
        assert_eq!(clocks(&[5_000], 5_000), Clocks::Right);
        assert_eq!(clocks(&[5_000, 90_000], 5_000), Clocks::Right, "two cannot tell which of them is wrong");
        assert_eq!(clocks(&[5_000, 90_000, 5_900], 5_000), Clocks::Right, "a third agrees");
        assert_eq!(clocks(&[5_000, 6_001, 90_000], 5_000), Clocks::Off(-1_001));
        assert_eq!(clocks(&[5_000, 1_000, 1_100], 5_000), Clocks::Off(3_900));
        assert_eq!(clocks(&[5_000, 5_000, 90_000, 90_000], 5_000), Clocks::Right);
        assert_eq!(clocks(&[5_000, 5_000, 5_000, 90_000, 90_000], 90_000), Clocks::Off(85_000));
        let late = told(&[0, 0, 0], 0).clocks(Timestamp(50_000), &[1, 2, 3], ms(12_100));
        assert_eq!(late, Clocks::TooFewHeard, "nobody has told it lately");
    }

    #[test]
    fn with_a_voter_gone_a_leader_of_long_standing_whose_clock_jumps_is_not_right() {
        let clocks = |own: i64| told(&[5_000, 5_000], 0).clocks(Timestamp(own + 100), &[1, 2, 3], ms(10_100));
        assert_eq!((clocks(5_000), clocks(25_000)), (Clocks::Right, Clocks::Off(20_000)));
        let jumped = |own: i64| told(&[own, 5_000], 0).clocks(Timestamp(own + 100), &[1, 2, 3], ms(10_100));
        assert_eq!((jumped(25_000), jumped(-15_000)), (Clocks::Disagreeing, Clocks::Disagreeing));
    }

    #[test]
    fn a_clock_of_which_something_is_long_under_way_is_not_taken_for_slow() {
        let mut granter = told(&[5_000, 5_000, 5_000], 0);
        for node in 1..=3 {
            granter.showed(&renew(node, 0, 5_100), ms(12_000));
        }
        assert_eq!(granter.clocks(Timestamp(7_000), &[1, 2, 3], ms(12_000)), Clocks::Right);
        for node in 1..=3 {
            granter.showed(&renew(node, 0, 5_300), ms(12_200));
        }
        assert_eq!(
            granter.clocks(Timestamp(7_200), &[1, 2, 3], ms(12_200)),
            Clocks::Off(1_900),
            "a lease long it says nothing else"
        );
    }

    #[test]
    fn a_new_leaders_clock_says_nothing_before_most_have_been_heard_and_all_if_those_disagree() {
        let voters = [1, 2, 3];
        let clocks = |walls: &[i64], now: i64| {
            told(walls, 9_000).clocks(Timestamp(now - 5_000), &voters, ms(now.unsigned_abs()))
        };
        assert_eq!(clocks(&[5_000], 10_000), Clocks::TooFewHeard);
        assert_eq!(clocks(&[5_000, 5_900], 10_000), Clocks::Right);
        assert_eq!(clocks(&[5_000, 90_000], 10_000), Clocks::TooFewHeard, "the third may tell which is wrong");
        assert_eq!(clocks(&[5_000, 90_000], 11_100), Clocks::Disagreeing, "it is gone, and nobody else can tell");
    }
}
