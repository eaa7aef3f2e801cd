//! What models say, written out: every feature is evaluated for every offer, whatever it reads.

use std::sync::Arc;

use super::case::{Case, OfferRow};
use super::slots::Slot;
use crate::decide::request::Request;
use crate::decide::stable_hash::draw;
use crate::expr::{self, Namespace, compare};
use crate::keys::ModelKey;
use crate::learn::{Draws, Propensity, PropensitySource, Purpose};
use crate::model::algorithm::{AlgorithmModel, Bayesian, LogisticRegression, ModelConfig, Predictor, Scorecard};
use crate::model::metric::Dimension;
use crate::model::{Entity, Status};
use crate::value::Value;

type ModelRow = Arc<Entity<ModelKey, AlgorithmModel>>;

impl Case<'_> {
    /// The model of this key; of one that leaves it to others, the one that scores this customer.
    fn model(&self, key: &str) -> Option<&ModelRow> {
        let found = self.row(key)?;
        match self.split(found) {
            Some((scores, _)) => self.row(&scores),
            None => Some(found),
        }
    }

    fn row(&self, key: &str) -> Option<&ModelRow> {
        self.catalog.models().iter().find(|row| row.body.key.as_deref() == Some(key))
    }

    /// Of a model that leaves it to others: which of them scores this customer, and which does not.
    fn split(&self, model: &ModelRow) -> Option<(String, String)> {
        let in_force = model.body.status == Status::Active;
        let Some(ModelConfig::ChampionChallenger(config)) = model.body.typed().filter(|_| in_force) else {
            return None;
        };
        let Request { tenant, customer, .. } = self.request;
        let drawn = draw(tenant, "challenger", model.body.key.as_deref().unwrap_or_default(), customer);
        Some(match config.percent >= 100.0 || drawn * 100.0 < config.percent {
            true => (config.challenger, config.champion),
            false => (config.champion, config.challenger),
        })
    }

    /// The model that scores `offer` in `slot` for this customer, and the one that does for others with its P.
    pub(super) fn told_of_models(&self, offer: &OfferRow, slot: &Slot) -> (Option<ModelKey>, Option<(ModelKey, f64)>) {
        let named = self.scoring_key(offer, Some(slot));
        let scores = named.and_then(|key| self.model(key)).map(|row| row.key);
        let split = named.and_then(|key| self.row(key)).and_then(|row| self.split(row));
        let shadow = split.and_then(|(_, shadow)| self.row(&shadow).cloned());
        (scores, shadow.map(|row| (row.key, self.propensity_of(&row, offer).value)))
    }

    /// The model that scores `offer` in `slot`; without a slot, whatever the channel.
    fn scoring_model(&self, offer: &OfferRow, slot: Option<&Slot>) -> Option<&ModelRow> {
        self.model(self.scoring_key(offer, slot)?)
    }

    fn scoring_key(&self, offer: &OfferRow, slot: Option<&Slot>) -> Option<&str> {
        if let Some(formula) = &self.flow.formula {
            return formula.model_key.as_deref();
        }
        let score = &self.flow.score;
        let applying = score.overrides.iter().find(|other| {
            let on_channel = match (&other.channel, slot) {
                (None, _) => true,
                (Some(_), None) => false,
                (Some(id), Some(slot)) => self.catalog.channels().key_of(&id.0) == Some(slot.channel),
            };
            on_channel
                && other.category.as_ref().is_none_or(|id| Some(id) == offer.body.category_id.as_ref())
                && other.product_type.as_ref().is_none_or(|product_type| *product_type == offer.body.product_type)
        });
        let swapped = applying.and_then(|other| other.model_key.as_deref());
        swapped.or(score.model_key.as_deref())
    }

    /// P as it ranks `offer` in `slot`.
    pub(super) fn propensity(&self, offer: &OfferRow, slot: &Slot) -> Propensity {
        match self.scoring_model(offer, Some(slot)) {
            Some(model) => self.propensity_of(model, offer),
            None => self.learned(offer, None),
        }
    }

    /// P by a model that scores itself.
    fn propensity_of(&self, model: &ModelRow, offer: &OfferRow) -> Propensity {
        if model.body.status != Status::Active {
            return self.learned(offer, None);
        }
        let drawn = |value: f64| Propensity { value: value.clamp(1e-9, 1.0 - 1e-9), source: PropensitySource::Model };
        match model.body.typed() {
            Some(ModelConfig::ThompsonBandit(config)) => {
                let tally = self.tallies.offers.iter().find(|(key, _)| *key == offer.key);
                let tally = tally.map(|(_, tally)| *tally).unwrap_or_default();
                let (good, weight) = (tally.positive.min(tally.shown), config.prior_weight);
                let prior = self.without_own(offer, None).value;
                let (a, b) = (good as f64 + weight * prior, (tally.shown - good) as f64 + weight * (1.0 - prior));
                drawn(Draws::of_offer(self.seed, Purpose::Posterior, offer.key).beta(a, b))
            }
            Some(ModelConfig::EpsilonGreedy(config)) => {
                if Draws::of_decision(self.seed, Purpose::Explores).uniform() < config.epsilon {
                    return drawn(Draws::of_offer(self.seed, Purpose::Explored, offer.key).uniform());
                }
                self.learned(offer, None)
            }
            Some(
                ModelConfig::Scorecard(_)
                | ModelConfig::LogisticRegression(_)
                | ModelConfig::Bayesian(_)
                | ModelConfig::ChampionChallenger(_),
            )
            | None => self.learned(offer, self.estimate(model, offer)),
        }
    }

    /// P as rules look at it: expected, not drawn.
    pub(super) fn expected(&self, offer: &OfferRow) -> Propensity {
        let model = self.scoring_model(offer, None);
        self.learned(offer, model.and_then(|model| self.estimate(model, offer)))
    }

    /// Whether the offer's own `eligibility` finds it likely enough.
    pub(super) fn is_likely_enough(&self, least: f64, offer: &OfferRow) -> bool {
        let named = offer.body.eligibility.model_reference.as_ref().and_then(|key| self.model(key));
        let Some(model) = named else { return self.expected(offer).value >= least };
        let likely = match is_bandit(model) {
            true => self.learned(offer, None).value,
            false => self.estimate(model, offer).unwrap_or(0.5),
        };
        likely >= least
    }

    /// Whether a model that a proposition of `offer` in `slot` goes by could not score.
    pub(super) fn is_degraded(&self, offer: &OfferRow, slot: &Slot) -> bool {
        let fails = |model: &ModelRow| match is_bandit(model) {
            true => model.body.status != Status::Active,
            false => self.estimate(model, offer).is_none(),
        };
        let eligibility = &offer.body.eligibility;
        let asks = eligibility.propensity_threshold.is_some() && !self.flow.qualify.is_empty();
        let gating = eligibility.model_reference.as_ref().filter(|_| asks).and_then(|key| self.model(key));
        self.scoring_model(offer, Some(slot)).is_some_and(fails) || gating.is_some_and(fails)
    }

    /// What an estimator says of `offer`; `None` if it cannot score.
    fn estimate(&self, model: &ModelRow, offer: &OfferRow) -> Option<f64> {
        if model.body.status != Status::Active {
            return None;
        }
        let z = match model.body.typed()? {
            ModelConfig::Scorecard(config) => self.points(&config, offer)?,
            ModelConfig::LogisticRegression(config) => self.log_odds(&config, offer)?,
            ModelConfig::Bayesian(config) => self.posterior(&config, offer)?,
            ModelConfig::ThompsonBandit(_) | ModelConfig::EpsilonGreedy(_) | ModelConfig::ChampionChallenger(_) => {
                return None;
            }
        };
        z.is_finite().then(|| (1.0 / (1.0 + libm::exp(-z))).clamp(1e-9, 1.0 - 1e-9))
    }

    fn points(&self, config: &Scorecard, offer: &OfferRow) -> Option<f64> {
        let sum = self.sum(
            config.base_points,
            &config.characteristics,
            offer,
            |one| &one.expression,
            |one, value| {
                if is_none(value) {
                    return one.missing;
                }
                let bin = one.bins.iter().find(|bin| is_in(value, bin.from, bin.to, &bin.values));
                Some(bin.map_or(one.otherwise, |bin| bin.points))
            },
        )?;
        let slope = core::f64::consts::LN_2 / config.points_to_double_odds;
        Some((sum - config.target_points) * slope + libm::log(config.target_odds))
    }

    fn log_odds(&self, config: &LogisticRegression, offer: &OfferRow) -> Option<f64> {
        self.sum(
            config.intercept,
            &config.features,
            offer,
            |one| &one.expression,
            |one, value| Some(one.coefficient * (number(value).or(one.missing)? - one.mean) / one.scale),
        )
    }

    fn posterior(&self, config: &Bayesian, offer: &OfferRow) -> Option<f64> {
        let prior = libm::log(config.prior) - libm::log(1.0 - config.prior);
        let evidence = |one: &Predictor, value: &Value| {
            if let Some(normals) = &one.gaussian {
                let Some(x) = number(value) else { return 0.0 };
                let (good, bad) = (&normals.positive, &normals.negative);
                let far = |mean: f64, deviation: f64| (x - mean) / deviation;
                let (to_good, to_bad) = (far(good.mean, good.deviation), far(bad.mean, bad.deviation));
                let spread = libm::log(bad.deviation) - libm::log(good.deviation);
                return spread + 0.5 * (to_bad * to_bad - to_good * to_good);
            }
            if is_none(value) {
                return 0.0;
            }
            let bin = one.bins.iter().find(|bin| is_in(value, bin.from, bin.to, &bin.values));
            let likely = bin.map(|bin| (bin.positive, bin.negative));
            let likely = likely.or(one.otherwise.as_ref().map(|one| (one.positive, one.negative)));
            likely.map_or(0.0, |(positive, negative)| libm::log(positive) - libm::log(negative))
        };
        self.sum(prior, &config.predictors, offer, |one| &one.expression, |one, value| Some(evidence(one, value)))
    }

    /// (constant + what features of the request add) + what features of the offer add, each in order.
    fn sum<T>(
        &self,
        constant: f64,
        features: &[T],
        offer: &OfferRow,
        expression: impl Fn(&T) -> &str,
        adds: impl Fn(&T, &Value) -> Option<f64>,
    ) -> Option<f64> {
        let (mut of_request, mut of_offer) = (constant, 0.0);
        for feature in features {
            let text = expression(feature);
            let added = adds(feature, &self.evaluate(text, offer))?;
            if self.reads_offer(text) { of_offer += added } else { of_request += added }
        }
        Some(of_request + of_offer)
    }

    /// Whether a feature is one of the offer: by what it reads, not by what it is worth.
    fn reads_offer(&self, text: &str) -> bool {
        let Ok(ast) = expr::parse(text) else { return false };
        ast.names().any(|name| match name.namespace {
            Namespace::Bare | Namespace::Offer => true,
            Namespace::Metric => {
                let metric = name.path.split('.').next();
                let row = self.catalog.metrics().iter().find(|row| Some(row.body.name.as_str()) == metric);
                let by = |one: &Dimension| matches!(one, Dimension::Offer | Dimension::Category);
                row.is_some_and(|row| row.body.group_by.iter().any(by))
            }
            Namespace::Customer | Namespace::Attributes | Namespace::Context | Namespace::Other(_) => false,
        })
    }
}

fn is_bandit(model: &ModelRow) -> bool {
    matches!(model.body.typed(), Some(ModelConfig::ThompsonBandit(_) | ModelConfig::EpsilonGreedy(_)))
}

/// Whether a value is none that bins hold.
fn is_none(value: &Value) -> bool {
    matches!(value, Value::Null | Value::List(_) | Value::Map(_))
}

fn is_in(value: &Value, from: Option<f64>, to: Option<f64>, values: &[Value]) -> bool {
    let in_range = match (value, from, to) {
        (Value::Number(number), Some(from), Some(to)) => from <= *number && *number < to,
        (Value::Number(number), Some(from), None) => from <= *number,
        (Value::Number(number), None, Some(to)) => *number < to,
        _ => false,
    };
    in_range || values.iter().any(|listed| compare::equal(listed, value))
}

/// A number as it is, a boolean as 1 or 0.
fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => Some(*number),
        Value::Bool(true) => Some(1.0),
        Value::Bool(false) => Some(0.0),
        Value::Null | Value::Text(_) | Value::List(_) | Value::Map(_) => None,
    }
}
