//! Results of an experiment (domain.md §4): what came of treated and of held-out customers, compared.
//!
//! The unit is the customer: each counts once, whatever was proposed how often, and what they brought counts together.

use bincode::{Decode, Encode};

use super::statistics::{
    AlwaysValid, Interval, MeanDifference, Sample, Share, Test, always_valid, two_proportions, welch,
};
use crate::limits::TRIAL_REVENUE_MAX;
use crate::profile::trials::{Participation, Reaction, Slice};
use crate::time::Timestamp;

/// Standard deviation of the effects that are looked out for at all times: one point of the rate. Fixed, for it must not follow the data.
pub const EFFECT: f64 = 0.01;

/// Sums over the customers of one arm. They add up in any order, over shards too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct ArmTally {
    /// Enrolled.
    pub customers: u64,
    /// Of those, found in the other arm later.
    pub moved: u64,
    /// Of those enrolled, with the outcome that is asked about.
    pub converted: u64,
    /// What all brought, in micro-units.
    pub revenue: i128,
    /// Sum of the squares of what each brought.
    pub squares: i128,
}

/// Both arms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct ExperimentTally {
    /// Who is treated.
    pub treatment: ArmTally,
    /// Who is held out.
    pub control: ArmTally,
}

impl ArmTally {
    fn add(&mut self, more: &ArmTally) {
        self.customers = self.customers.saturating_add(more.customers);
        self.moved = self.moved.saturating_add(more.moved);
        self.converted = self.converted.saturating_add(more.converted);
        self.revenue = self.revenue.saturating_add(more.revenue);
        self.squares = self.squares.saturating_add(more.squares);
    }

    fn share(&self) -> Share {
        Share { hits: self.converted.min(self.customers), of: self.customers }
    }

    /// What customers brought, in units; `None` without customers.
    fn sample(&self) -> Option<Sample> {
        let size = i128::from(self.customers);
        let whole = self.revenue.checked_div_euclid(size)?;
        let rest = self.revenue.checked_rem_euclid(size)?;
        // Deviations from the whole part of the mean are squared exactly; what is left of the mean is small.
        let around = self.squares.saturating_sub(whole.saturating_mul(self.revenue.saturating_add(rest)));
        let rest = rest as f64;
        let deviations = (around as f64 - rest * rest / size as f64).max(0.0);
        let variance = if self.customers < 2 { 0.0 } else { deviations / (size - 1) as f64 / 1e12 };
        Some(Sample { size: self.customers, mean: self.revenue as f64 / size as f64 / 1e6, variance })
    }
}

impl ExperimentTally {
    /// Counts a customer of the slice, as of `now`: by any good news and all that was brought, or by one outcome and what that brought.
    pub(crate) fn count(&mut self, part: &Participation, slice: Slice, now: Timestamp) {
        let Slice { offer, outcome } = slice;
        if offer.is_some_and(|offer| !part.began_with(offer, now)) {
            return;
        }
        let is_asked = |reaction: &&Reaction| {
            (offer.is_none() || reaction.offer == offer) && outcome.is_none_or(|asked| reaction.outcome == asked)
        };
        let asked = || part.reactions.iter().filter(is_asked);
        let is_hit = |reaction: &Reaction| outcome.is_some() || reaction.positive;
        let revenue = asked().fold(0_i64, |sum, reaction| sum.saturating_add(reaction.value.0));
        let revenue = i128::from(revenue.clamp(-TRIAL_REVENUE_MAX, TRIAL_REVENUE_MAX));
        let arm = if part.control { &mut self.control } else { &mut self.treatment };
        arm.add(&ArmTally {
            customers: 1,
            moved: u64::from(part.moved),
            converted: u64::from(asked().any(is_hit)),
            revenue,
            squares: revenue * revenue,
        });
    }

    /// Adds what another shard has counted.
    pub fn add(&mut self, more: &ExperimentTally) {
        self.treatment.add(&more.treatment);
        self.control.add(&more.control);
    }

    /// Whether nobody is enrolled.
    pub fn is_empty(&self) -> bool {
        self.treatment.customers == 0 && self.control.customers == 0
    }
}

/// One arm's numbers. Money is in currency units.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ArmResult {
    /// See [`ArmTally`].
    pub tally: ArmTally,
    /// Share of customers with the outcome; `None` without customers.
    pub rate: Option<f64>,
    /// Its Wilson 95 % interval.
    pub interval: Option<Interval>,
    /// What a customer brought on average.
    pub revenue: Option<f64>,
}

/// Treatment compared with control; each `None` where it is not defined.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ExperimentResult {
    /// Who is treated.
    pub treatment: ArmResult,
    /// Who is held out.
    pub control: ArmResult,
    /// Rate of the treated less that of those held out.
    pub absolute_lift: Option<f64>,
    /// That, as a share of the rate of those held out.
    pub relative_lift: Option<f64>,
    /// Pooled z-test, for one look at a sample whose size was fixed before.
    pub test: Option<Test>,
    /// For looks at any time.
    pub always_valid: Option<AlwaysValid>,
    /// Revenue per customer of the treated less that of those held out.
    pub incremental: Option<MeanDifference>,
}

impl ExperimentResult {
    /// Of sums over all shards.
    pub fn of(tally: &ExperimentTally) -> Self {
        let ExperimentTally { treatment, control } = tally;
        let of = |tally: &ArmTally| ArmResult {
            tally: *tally,
            rate: tally.share().rate(),
            interval: tally.share().wilson(),
            revenue: tally.sample().map(|sample| sample.mean),
        };
        let (treated, held) = (of(treatment), of(control));
        let absolute_lift = treated.rate.zip(held.rate).map(|(treated, held)| treated - held);
        ExperimentResult {
            treatment: treated,
            control: held,
            absolute_lift,
            relative_lift: absolute_lift.zip(held.rate.filter(|rate| *rate > 0.0)).map(|(lift, rate)| lift / rate),
            test: two_proportions(treatment.share(), control.share()),
            always_valid: always_valid(treatment.share(), control.share(), EFFECT),
            incremental: treatment.sample().zip(control.sample()).map(|(treated, held)| welch(treated, held)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::keys::{Micros, OfferKey, OutcomeKey};
    use crate::profile::trials::{ExperimentId, Opened};
    use crate::time::Timestamp;

    const ALL: Slice = Slice { offer: None, outcome: None };

    fn by(outcome: u16) -> Slice {
        Slice { outcome: Some(OutcomeKey(outcome)), ..ALL }
    }

    fn customer(control: bool, reactions: &[(u16, bool, i64)]) -> Participation {
        let of = |(outcome, positive, value): &(u16, bool, i64)| Reaction {
            offer: Some(OfferKey(u32::from(*outcome))),
            outcome: OutcomeKey(*outcome),
            positive: *positive,
            times: 1,
            value: Micros(*value),
        };
        let reactions = reactions.iter().map(of).collect();
        let opened = |offer, first| Opened { offer: OfferKey(offer), days: 1, first, at: Timestamp(5) };
        let windows = vec![opened(1, true), opened(2, true), opened(4, false)];
        Participation { experiment: ExperimentId::of("e"), control, moved: false, windows, reactions }
    }

    fn arm(converted: u64, customers: u64) -> ArmTally {
        ArmTally { customers, converted, ..ArmTally::default() }
    }

    #[test]
    fn the_reference_of_the_domain_is_what_a_result_says() {
        let found = ExperimentResult::of(&ExperimentTally { treatment: arm(540, 9_000), control: arm(40, 1_000) });
        let rounded = |number: f64| libm::round(number * 1e6) / 1e6;
        let test = found.test.unwrap();
        assert_eq!((rounded(test.z), rounded(test.p)), (2.566_917, 0.010_261));
        let interval = |arm: ArmResult| arm.interval.map(|of| (rounded(of.lower), rounded(of.upper)));
        assert_eq!(interval(found.treatment), Some((0.055_279, 0.065_097)));
        assert_eq!(interval(found.control), Some((0.029_511, 0.054_010)));
        assert_eq!((found.absolute_lift.map(rounded), found.relative_lift.map(rounded)), (Some(0.02), Some(0.5)));
        // Nobody brought anything: no difference, and nothing that varies.
        assert_eq!(found.incremental, Some(MeanDifference { value: 0.0, interval: None }));
        let always = found.always_valid.unwrap();
        assert!(always.p > test.p && always.interval.lower < 0.02 && always.interval.upper > 0.02, "{always:?}");
    }

    #[test]
    fn empty_and_one_sided_arms_have_what_is_defined_and_nothing_else() {
        let nobody = ExperimentResult::of(&ExperimentTally::default());
        assert_eq!((nobody.treatment.rate, nobody.treatment.interval, nobody.treatment.revenue), (None, None, None));
        assert_eq!(
            (nobody.absolute_lift, nobody.test, nobody.always_valid, nobody.incremental),
            (None, None, None, None)
        );
        let treated = ExperimentResult::of(&ExperimentTally { treatment: arm(3, 9), control: arm(0, 0) });
        assert_eq!((treated.treatment.rate, treated.control.rate), (Some(1.0 / 3.0), None));
        assert_eq!((treated.absolute_lift, treated.relative_lift, treated.test), (None, None, None));
        let lift = ExperimentResult::of(&ExperimentTally { treatment: arm(3, 9), control: arm(0, 5) });
        assert_eq!((lift.absolute_lift, lift.relative_lift), (Some(1.0 / 3.0), None), "nothing to compare with");
        assert!(lift.test.is_some());
    }

    #[test]
    fn a_customer_converts_once_by_good_news_and_revenue_adds_up_or_by_the_outcome_asked_about() {
        let mut any = ExperimentTally::default();
        let mut bought = ExperimentTally::default();
        let customers = [
            customer(false, &[(1, true, 0), (2, true, 3_000_000)]),
            customer(false, &[(4, false, -500_000)]),
            customer(true, &[(2, true, 1_000_000)]),
            customer(true, &[]),
        ];
        for part in &customers {
            any.count(part, ALL, Timestamp(0));
            bought.count(part, by(2), Timestamp(0));
        }
        let sums = |arm: &ArmTally| (arm.customers, arm.converted, arm.revenue);
        assert_eq!((sums(&any.treatment), sums(&any.control)), ((2, 1, 2_500_000), (2, 1, 1_000_000)));
        assert_eq!((sums(&bought.treatment), sums(&bought.control)), ((2, 1, 3_000_000), (2, 1, 1_000_000)));
        let mut bad = ExperimentTally::default();
        bad.count(&customers[1], by(4), Timestamp(0));
        assert_eq!(sums(&bad.treatment), (1, 1, -500_000), "what is asked about need not be good");
    }

    #[test]
    fn a_slice_has_who_began_with_the_offer_and_what_came_of_it_alone() {
        let sliced = |offer, outcome: Option<u16>| {
            let mut tally = ExperimentTally::default();
            let slice = Slice { offer: Some(OfferKey(offer)), outcome: outcome.map(OutcomeKey) };
            tally.count(&customer(false, &[(1, true, 10), (2, false, 200), (4, true, 4_000)]), slice, Timestamp(0));
            (tally.treatment.customers, tally.treatment.converted, tally.treatment.revenue)
        };
        assert_eq!((sliced(1, None), sliced(2, None)), ((1, 1, 10), (1, 0, 200)));
        assert_eq!((sliced(2, Some(2)), sliced(2, Some(1))), ((1, 1, 200), (1, 0, 0)));
        assert_eq!((sliced(4, None), sliced(7, None)), ((0, 0, 0), (0, 0, 0)), "proposed later, and never");
    }

    #[test]
    fn a_fortune_counts_up_to_its_limit() {
        let mut tally = ExperimentTally::default();
        tally.count(&customer(false, &[(1, true, i64::MAX), (2, true, i64::MAX)]), ALL, Timestamp(0));
        tally.count(&customer(false, &[(1, true, i64::MIN)]), ALL, Timestamp(0));
        let limit = i128::from(TRIAL_REVENUE_MAX);
        assert_eq!((tally.treatment.revenue, tally.treatment.squares), (0, 2 * limit * limit));
    }

    proptest! {
        #[test]
        fn means_and_variances_are_those_of_the_numbers_themselves(
            base in -1_000_000_000..1_000_000_000_i64,
            numbers in prop::collection::vec(-5_000_000..5_000_000_i64, 2..60),
        ) {
            let mut tally = ExperimentTally::default();
            let mut apart = [ExperimentTally::default(); 3];
            for (index, number) in numbers.iter().enumerate() {
                tally.count(&customer(true, &[(1, true, base + number)]), ALL, Timestamp(0));
                apart[index % 3].count(&customer(true, &[(1, true, base + number)]), ALL, Timestamp(0));
            }
            let mut sum = ExperimentTally::default();
            apart.iter().rev().for_each(|shard| sum.add(shard));
            prop_assert_eq!(sum, tally);
            // Two passes over the numbers, less what they have in common.
            let size = numbers.len() as f64;
            let mean = numbers.iter().map(|number| *number as f64).sum::<f64>() / size;
            let squares = numbers.iter().map(|number| (*number as f64 - mean) * (*number as f64 - mean)).sum::<f64>();
            let variance = squares / (size - 1.0) / 1e12;
            let sample = tally.control.sample().unwrap();
            prop_assert!((sample.mean - (base as f64 + mean) / 1e6).abs() < 1e-9, "{}", sample.mean);
            prop_assert!((sample.variance - variance).abs() <= 1e-9 * variance.max(1e-9), "{} {}", sample.variance, variance);
        }
    }
}
