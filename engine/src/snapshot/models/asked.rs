//! Models as one decision asks them: which of them scores this customer, what it says of an offer, what it draws.

use std::cell::OnceCell;

use smallvec::SmallVec;

use super::estimator::LEAST;
use super::{Model, ModelKind};
use crate::decide::request::Request;
use crate::decide::stable_hash::draw;
use crate::keys::{CustomerId, ModelKey, TenantId};
use crate::learn::{Draws, Propensity, PropensitySource, Purpose};
use crate::snapshot::shared::Shared;
use crate::snapshot::world::OfferWorld;

/// The models of a tenant as one decision asks them.
#[derive(Debug, Default)]
pub struct Models<'a> {
    all: &'a [Model],
    /// What is the same for all offers, added up when it is first asked for.
    heads: Box<[OnceCell<Option<f64>>]>,
    seed: u64,
    /// Whether this decision explores, by model.
    explores: OnceCell<f64>,
    /// Which of two scores this customer.
    turns: SmallVec<[Turn; 2]>,
}

/// Which of two models scores a customer.
#[derive(Clone, Copy, Debug)]
struct Turn {
    of: ModelKey,
    scores: ModelKey,
    shadow: ModelKey,
}

impl<'a> Models<'a> {
    /// Those of `shared`, for the decision of `seed` on `request`. Allocates nothing where there are none.
    pub(crate) fn new(shared: &'a Shared, seed: u64, request: &Request) -> Self {
        let all = &*shared.models;
        let turns = all.iter().filter(|model| model.active).filter_map(|model| {
            let ModelKind::Versus { champion, challenger, percent } = model.kind else { return None };
            let is_challenged = challenges(&request.tenant, &model.name, &request.customer, percent);
            let (scores, shadow) = if is_challenged { (challenger, champion) } else { (champion, challenger) };
            Some(Turn { of: model.key, scores, shadow })
        });
        let turns = turns.collect();
        Models { all, heads: vec![OnceCell::new(); all.len()].into(), seed, explores: OnceCell::new(), turns }
    }

    fn turn(&self, model: ModelKey) -> Option<&Turn> {
        self.turns.iter().find(|turn| turn.of == model)
    }

    /// The model that scores this customer where `model` is named.
    pub(crate) fn scoring(&self, model: ModelKey) -> ModelKey {
        self.turn(model).map_or(model, |turn| turn.scores)
    }

    /// The one that only tells what it would say.
    pub(crate) fn shadow(&self, model: ModelKey) -> Option<ModelKey> {
        self.turn(model).map(|turn| turn.shadow)
    }

    fn place(&self, model: ModelKey) -> Option<usize> {
        self.all.binary_search_by_key(&self.scoring(model), |model| model.key).ok()
    }

    /// The model that scores this customer where the one of this name is meant.
    pub(crate) fn named(&self, name: &str) -> Option<&'a Model> {
        let named = self.all.iter().find(|model| model.name == name)?;
        Some(&self.all[self.place(named.key)?])
    }
}

/// Whether `customer` is among those that the challenger of `model` scores: the same for ever, and a larger share only adds customers.
fn challenges(tenant: &TenantId, model: &str, customer: &CustomerId, percent: f64) -> bool {
    percent >= 100.0 || draw(tenant, "challenger", model, customer) * 100.0 < percent
}

impl OfferWorld<'_, '_> {
    /// What an estimator itself says of the offer; `None` if it cannot score, or is none.
    pub(crate) fn estimate(&self, model: ModelKey) -> Option<f64> {
        let models = &self.world.models;
        let place = models.place(model)?;
        let model = &models.all[place];
        let ModelKind::Estimator(estimator) = &model.kind else { return None };
        if !model.active {
            return None;
        }
        let head = (*models.heads[place].get_or_init(|| estimator.head(self.world)))?;
        let tail = match &self.segment.tails[place] {
            Some(tails) if tails.open.as_ref().is_none_or(|open| !open.has(self.position)) => {
                Some(tails.sums[self.position as usize]).filter(|sum| !sum.is_nan())
            }
            Some(_) | None => estimator.tail(self),
        };
        estimator.probability(head + tail?)
    }

    /// P of the offer by a model as it ranks: bandits draw it.
    pub(crate) fn propensity_by(&self, model: Option<ModelKey>) -> Propensity {
        let models = &self.world.models;
        let found = model.and_then(|model| models.place(model)).map(|place| &models.all[place]);
        let Some(model) = found.filter(|model| model.active) else { return self.expected_by(None) };
        let (offer, category) = self.who();
        let drawn = |value: f64| Propensity { value: value.clamp(LEAST, 1.0 - LEAST), source: PropensitySource::Model };
        match model.kind {
            // One that is in force has left it to another.
            ModelKind::Estimator(_) | ModelKind::Versus { .. } => self.expected_by(Some(model.key)),
            ModelKind::Thompson { prior_weight } => {
                let (tally, prior) = self.world.learned.evidence(offer, category);
                let good = tally.positive.min(tally.shown);
                let a = good as f64 + prior_weight * prior.value;
                let b = (tally.shown - good) as f64 + prior_weight * (1.0 - prior.value);
                drawn(Draws::of_offer(models.seed, Purpose::Posterior, offer).beta(a, b))
            }
            ModelKind::EpsilonGreedy { epsilon } => {
                let explores =
                    models.explores.get_or_init(|| Draws::of_decision(models.seed, Purpose::Explores).uniform());
                match *explores < epsilon {
                    true => drawn(Draws::of_offer(models.seed, Purpose::Explored, offer).uniform()),
                    false => self.expected_by(None),
                }
            }
        }
    }

    /// P of the offer by a model as it admits: what is expected, whatever a bandit draws.
    pub(crate) fn expected_by(&self, model: Option<ModelKey>) -> Propensity {
        let (offer, category) = self.who();
        let learned = self.world.learned;
        match model.and_then(|model| self.estimate(model)) {
            Some(said) => learned.propensity_over(said, offer, category),
            None => learned.propensity(offer, category),
        }
    }

    /// Whether the offer's own `eligibility` finds it likely enough for the customer: by what the model that it names says, else by what is
    /// expected of the offer.
    pub(crate) fn is_likely_enough(&self) -> bool {
        let eligibility = &self.segment.offers[self.position as usize].body.eligibility;
        let Some(least) = eligibility.propensity_threshold else { return true };
        let named = eligibility.model_reference.as_deref().and_then(|name| self.world.models.named(name));
        let likely = match named.map(|model| (model, &model.kind)) {
            Some((model, ModelKind::Estimator(_) | ModelKind::Versus { .. })) => {
                self.estimate(model.key).unwrap_or(UNKNOWN)
            }
            Some((_, ModelKind::Thompson { .. } | ModelKind::EpsilonGreedy { .. })) => self.expected_by(None).value,
            None => self.propensity().value,
        };
        likely >= least
    }

    /// Whether the model that scores the offer, or, where flows `qualify`, the one that its `eligibility` asks, could not score it.
    pub(crate) fn is_degraded(&self, model: Option<ModelKey>, qualify: bool) -> bool {
        let models = &self.world.models;
        let fails = |model: &Model| match &model.kind {
            ModelKind::Estimator(_) => self.estimate(model.key).is_none(),
            ModelKind::Thompson { .. } | ModelKind::EpsilonGreedy { .. } | ModelKind::Versus { .. } => !model.active,
        };
        let scoring = model.and_then(|model| models.place(model)).map(|place| &models.all[place]);
        let eligibility = &self.segment.offers[self.position as usize].body.eligibility;
        let gating =
            eligibility.model_reference.as_deref().filter(|_| qualify && eligibility.propensity_threshold.is_some());
        scoring.is_some_and(fails) || gating.and_then(|name| models.named(name)).is_some_and(fails)
    }
}

/// What stands in the place of a model that cannot score.
const UNKNOWN: f64 = crate::decide::score::NEUTRAL_PROPENSITY;
