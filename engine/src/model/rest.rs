//! What is left of a body when the parts that cannot be read are taken out: it can be checked as well, so that one bad member,
//! or one bad item of a list, does not hide what else is wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::model::fault::{Fault, Faults};
use crate::model::record::Field;
use crate::value::{Members, Value};

/// The readable rest of a body.
#[derive(Debug)]
pub struct Rest {
    members: Members,
    /// Members about which nothing more is to be said.
    suspect: BTreeSet<String>,
    /// Lists that lost items, with the places that the others had.
    kept: BTreeMap<String, Vec<usize>>,
}

impl Rest {
    /// Takes out of `members` where `faults` lie: an item where it lies in one of a list, else the whole member. The items of
    /// a list that `is_whole` go together: they mean nothing without each other. O(members + faults).
    pub fn of(members: &Members, faults: &[Fault], is_whole: impl Fn(&str) -> bool) -> Rest {
        let mut rest = Rest { members: members.clone(), suspect: BTreeSet::new(), kept: BTreeMap::new() };
        let mut bad_items: BTreeMap<&str, BTreeSet<usize>> = BTreeMap::new();
        for fault in faults {
            let (member, index) = place_of(fault);
            match (members.get(member), index) {
                (Some(Value::List(_)), Some(index)) if !is_whole(member) => {
                    bad_items.entry(member).or_default().insert(index);
                }
                _ => rest.take_out(member),
            }
        }
        for (member, bad) in bad_items {
            let Some(Value::List(items)) = members.get(member) else { continue };
            let kept: Vec<usize> = (0..items.len()).filter(|index| !bad.contains(index)).collect();
            if kept.is_empty() {
                rest.take_out(member);
            } else if !rest.suspect.contains(member) {
                let items = Value::list(kept.iter().map(|index| items[*index].clone()));
                rest.members.insert(Arc::from(member), items);
                rest.kept.insert(member.to_owned(), kept);
            }
        }
        rest
    }

    fn take_out(&mut self, member: &str) {
        self.members.remove(member);
        self.suspect.insert(member.to_owned());
    }

    /// Whether a member was taken out.
    pub fn lacks(&self, member: &str) -> bool {
        self.suspect.contains(member)
    }

    /// What will be found wrong with `member` is a consequence of what was taken out.
    pub fn distrust(&mut self, member: &str) {
        self.suspect.insert(member.to_owned());
    }

    /// The rest as a body, with members of `stand_in` in place of those that are missing.
    pub fn read<T: Field>(&self, stand_in: &Members) -> Option<T> {
        let mut members = self.members.clone();
        for (name, value) in stand_in {
            members.entry(Arc::clone(name)).or_insert_with(|| value.clone());
        }
        T::read(&Value::Map(Arc::new(members)), &mut Faults::new())
    }

    /// What was found wrong with the rest, said of the whole body; nothing where it may be a mere consequence.
    pub fn relevant(&self, found: Vec<Fault>) -> impl Iterator<Item = Fault> {
        found.into_iter().filter_map(|fault| {
            let (member, index) = place_of(&fault);
            if self.suspect.contains(member) {
                return None;
            }
            let Some(kept) = self.kept.get(member) else { return Some(fault) };
            let place = kept.get(index?)?;
            let within = fault.pointer.splitn(4, '/').nth(3).map_or(String::new(), |within| format!("/{within}"));
            Some(Fault { pointer: format!("/{member}/{place}{within}"), message: fault.message })
        })
    }
}

/// The top-level member that a fault lies in, and the item if that is a list.
fn place_of(fault: &Fault) -> (&str, Option<usize>) {
    let mut steps = fault.pointer.split('/').skip(1);
    (steps.next().unwrap_or(""), steps.next().and_then(|step| step.parse().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(pointer: &str) -> Fault {
        Fault { pointer: pointer.to_owned(), message: "m".to_owned() }
    }

    fn body() -> Members {
        let list = |items: &[f64]| Value::list(items.iter().map(|item| Value::Number(*item)));
        let members = [("a", list(&[0.0, 1.0, 2.0, 3.0])), ("b", list(&[0.0])), ("c", Value::Bool(true))];
        members.into_iter().map(|(name, value)| (Arc::from(name), value)).collect()
    }

    fn relevant(rest: &Rest, pointers: &[&str]) -> Vec<String> {
        let found = pointers.iter().map(|pointer| fault(pointer)).collect();
        rest.relevant(found).map(|fault| fault.pointer).collect()
    }

    #[test]
    fn faults_of_a_list_that_lost_items_are_told_by_their_old_places() {
        let rest = Rest::of(&body(), &[fault("/a/0"), fault("/a/2/x/y")], |_| false);
        assert_eq!(rest.members["a"], Value::list([Value::Number(1.0), Value::Number(3.0)]));
        assert_eq!(relevant(&rest, &["/a/0/x/y", "/a/1", "/c"]), ["/a/1/x/y", "/a/3", "/c"]);
        assert!(relevant(&rest, &["/a"]).is_empty(), "how many there are means nothing now");
    }

    #[test]
    fn a_list_without_items_left_one_that_is_whole_and_a_bad_member_go_altogether() {
        let rest = Rest::of(&body(), &[fault("/a/1"), fault("/b/0"), fault("/c")], |member| member == "a");
        assert!(rest.members.is_empty() && ["a", "b", "c"].iter().all(|member| rest.lacks(member)));
        assert!(relevant(&rest, &["/a/1", "/b", "/c"]).is_empty());
        assert_eq!(relevant(&rest, &["/d"]), ["/d"]);
    }
}
