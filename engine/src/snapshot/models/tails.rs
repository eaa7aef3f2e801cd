//! What the offers of a segment add to estimators: columns, as far as it follows from what is stored of each.

use std::sync::Arc;

use super::{Estimator, Model, ModelKind, members};
use crate::snapshot::bitset::{Bits, put};
use crate::snapshot::flows::Plan;
use crate::snapshot::segment::Segment;
use crate::snapshot::shared::Shared;
use crate::snapshot::world::{OfferWorld, World};

/// What the offers of a segment add to a model's sum.
#[derive(Clone, Debug)]
pub struct Tails {
    /// By position; NaN where a value is missing.
    pub(super) sums: Box<[f64]>,
    /// Positions it must be evaluated for.
    pub(super) open: Option<Bits>,
}

impl Tails {
    fn new(segment: &Segment, shared: &Shared, estimator: &Estimator) -> Self {
        let world = World::of_nothing();
        let (mut sums, mut open) = (vec![0.0; segment.len], Bits::none(segment.len));
        let is_timeless = estimator.is_timeless();
        for position in 0..segment.len as u32 {
            let is_stored = |field: u16| segment.fields[usize::from(field)].is_stored(position);
            if is_timeless && estimator.offer_fields().all(is_stored) {
                let at = OfferWorld::new(&world, shared, segment, position);
                sums[position as usize] = estimator.tail(&at).unwrap_or(f64::NAN);
            } else {
                put(&mut open.0, position, true);
            }
        }
        Tails { sums: sums.into(), open: open.if_any() }
    }
}

/// What the offers of a segment add to each model that a flow of `shared` scores by; the others, and bandits, have none. Those of `was` are kept whose model is the same and
/// reads none of the fields `changed`.
pub(crate) fn tails(
    segment: &Segment,
    shared: &Shared,
    was: Option<&Shared>,
    changed: &[u16],
) -> Box<[Option<Arc<Tails>>]> {
    let columns = shared.models.iter().map(|model| {
        let ModelKind::Estimator(estimator) = &model.kind else { return None };
        let scoring = shared.parts.plans.values().iter().flat_map(Plan::models);
        let mut scoring = scoring.flat_map(|named| members(shared, named));
        if !estimator.looks_at_offers() || !scoring.any(|named| named == model.key) {
            return None;
        }
        let same = |known: &Model| matches!(&known.kind, ModelKind::Estimator(known) if known == estimator);
        let known = was.and_then(|was| was.models.iter().position(same));
        match known.and_then(|known| segment.tails[known].as_ref()) {
            Some(known) if !estimator.reads_any(changed) => Some(Arc::clone(known)),
            Some(_) | None => Some(Arc::new(Tails::new(segment, shared, estimator))),
        }
    });
    columns.collect()
}
