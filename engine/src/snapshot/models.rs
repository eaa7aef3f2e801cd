//! Models, compiled (docs/adr/0021). An estimator is (constant + what the request adds) + what the offer adds: the first is
//! added up once a request, the second once a snapshot where it follows from what is stored of the offer.

use std::cell::OnceCell;
use std::sync::Arc;

use smallvec::{SmallVec, smallvec};

use super::bitset::{Bits, put};
use super::flows::Plan;
use super::rules::program;
use super::segment::Segment;
use super::shared::Shared;
use super::slots::Names;
use super::world::{OfferWorld, World};
use crate::catalog::{TenantCatalog, is_of_offer};
use crate::decide::request::Request;
use crate::decide::stable_hash::draw;
use crate::expr::{Program, compare};
use crate::keys::{CustomerId, ModelKey, TenantId};
use crate::learn::{Draws, Propensity, PropensitySource, Purpose};
use crate::model::Status;
use crate::model::algorithm::{Bayesian, Gaussian, LogisticRegression, ModelConfig, Normal, Scorecard};
use crate::value::Value;

/// What a model says is at least this, and at most 1 less it: a P of 0 would remove an offer.
const LEAST: f64 = 1e-9;

/// A model.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    /// Which.
    pub key: ModelKey,
    /// What flows and offers call it.
    pub name: String,
    /// Not in force: it cannot score.
    pub active: bool,
    /// How it comes to a P.
    pub kind: ModelKind,
}

/// How a model comes to a P.
#[derive(Clone, Debug, PartialEq)]
pub enum ModelKind {
    /// It says what is expected.
    Estimator(Estimator),
    /// It draws from what outcomes leave open, a prior counting as so many propositions.
    Thompson {
        /// 0.1–1,000.
        prior_weight: f64,
    },
    /// It goes by what was learned, or by nothing in so many of one decisions.
    EpsilonGreedy {
        /// 0–1.
        epsilon: f64,
    },
    /// It leaves scoring to one of two, by customer.
    Versus {
        /// Which scores most.
        champion: ModelKey,
        /// Which scores so many customers of a hundred.
        challenger: ModelKey,
        /// 0–100.
        percent: f64,
    },
}

/// `P = 1 / (1 + e^−z)`, `z = (sum + offset) · slope + shift`.
#[derive(Clone, Debug, PartialEq)]
pub struct Estimator {
    constant: f64,
    /// Terms that are the same for all offers.
    of_request: Box<[Term]>,
    /// The others.
    of_offer: Box<[Term]>,
    offset: f64,
    slope: f64,
    shift: f64,
}

/// One feature.
#[derive(Clone, Debug, PartialEq)]
struct Term {
    program: Arc<Program>,
    measure: Measure,
    /// What it adds where it has no value; `None`: then nothing can be said.
    missing: Option<f64>,
}

/// What a value adds.
#[derive(Clone, Debug, PartialEq)]
enum Measure {
    /// `coefficient · (x − mean) / scale`.
    Scaled { coefficient: f64, mean: f64, scale: f64 },
    /// By the bin it is in; else so much.
    Bins(Box<[Bin]>, f64),
    /// The logarithm of how much likelier it is under the first of two normal distributions.
    Normals { positive: Normal, negative: Normal, constant: f64 },
}

#[derive(Clone, Debug, PartialEq)]
struct Bin {
    from: Option<f64>,
    to: Option<f64>,
    values: Vec<Value>,
    adds: f64,
}

impl Bin {
    fn holds(&self, value: &Value) -> bool {
        let in_range = value.as_number().is_some_and(|number| {
            (self.from.is_some() || self.to.is_some())
                && self.from.is_none_or(|from| from <= number)
                && self.to.is_none_or(|to| number < to)
        });
        in_range || compare::has_member(&self.values, value)
    }
}

/// The number that a value counts as.
fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => Some(*number),
        Value::Bool(flag) => Some(f64::from(u8::from(*flag))),
        Value::Null | Value::Text(_) | Value::List(_) | Value::Map(_) => None,
    }
}

impl Measure {
    /// What `value` adds; `None` where it is no value for this.
    fn of(&self, value: &Value) -> Option<f64> {
        match self {
            Measure::Scaled { coefficient, mean, scale } => Some(coefficient * (number(value)? - mean) / scale),
            Measure::Bins(bins, otherwise) => match value {
                Value::Null | Value::List(_) | Value::Map(_) => None,
                Value::Number(_) | Value::Bool(_) | Value::Text(_) => {
                    Some(bins.iter().find(|bin| bin.holds(value)).map_or(*otherwise, |bin| bin.adds))
                }
            },
            Measure::Normals { positive, negative, constant } => {
                let x = number(value)?;
                let square = |normal: &Normal| {
                    let far = (x - normal.mean) / normal.deviation;
                    far * far
                };
                Some(constant + 0.5 * (square(negative) - square(positive)))
            }
        }
    }
}

impl Term {
    fn add(&self, value: &Value) -> Option<f64> {
        self.measure.of(value).or(self.missing)
    }
}

/// ln(positive / negative).
fn log_ratio(positive: f64, negative: f64) -> f64 {
    libm::log(positive) - libm::log(negative)
}

/// All models of a catalogue, by key.
pub(crate) fn compile(catalog: &TenantCatalog, names: &mut Names) -> Box<[Model]> {
    let compiled = catalog.models().iter().filter_map(|row| {
        let config = row.body.typed()?;
        Some(Model {
            key: row.key,
            name: row.body.key.clone().unwrap_or_default(),
            active: row.body.status == Status::Active,
            kind: match &config {
                ModelConfig::Scorecard(config) => ModelKind::Estimator(scorecard(catalog, names, config)),
                ModelConfig::LogisticRegression(config) => ModelKind::Estimator(regression(catalog, names, config)),
                ModelConfig::Bayesian(config) => ModelKind::Estimator(bayesian(catalog, names, config)),
                ModelConfig::ThompsonBandit(config) => ModelKind::Thompson { prior_weight: config.prior_weight },
                ModelConfig::EpsilonGreedy(config) => ModelKind::EpsilonGreedy { epsilon: config.epsilon },
                ModelConfig::ChampionChallenger(config) => ModelKind::Versus {
                    champion: catalog.model_by_key(&config.champion)?.key,
                    challenger: catalog.model_by_key(&config.challenger)?.key,
                    percent: config.percent,
                },
            },
        })
    });
    compiled.collect()
}

/// Terms as they are authored, each with whether it reads the offer.
struct Terms<'a> {
    catalog: &'a TenantCatalog,
    names: &'a mut Names,
    of_request: Vec<Term>,
    of_offer: Vec<Term>,
}

impl<'a> Terms<'a> {
    fn new(catalog: &'a TenantCatalog, names: &'a mut Names) -> Self {
        Terms { catalog, names, of_request: Vec::new(), of_offer: Vec::new() }
    }

    fn push(&mut self, expression: &str, measure: Measure, missing: Option<f64>) {
        // None is stored that does not parse.
        let Some(program) = program(self.names, expression) else { return };
        let term = Term { program: Arc::new(program), measure, missing };
        match is_of_offer(self.catalog, expression) {
            true => self.of_offer.push(term),
            false => self.of_request.push(term),
        }
    }

    fn into_estimator(self, constant: f64, (offset, slope, shift): (f64, f64, f64)) -> Estimator {
        let (of_request, of_offer) = (self.of_request.into(), self.of_offer.into());
        Estimator { constant, of_request, of_offer, offset, slope, shift }
    }
}

/// The sum is the log-odds.
const AS_IT_IS: (f64, f64, f64) = (0.0, 1.0, 0.0);

fn scorecard(catalog: &TenantCatalog, names: &mut Names, config: &Scorecard) -> Estimator {
    let mut terms = Terms::new(catalog, names);
    for one in &config.characteristics {
        let bins =
            one.bins.iter().map(|bin| Bin { from: bin.from, to: bin.to, values: bin.values.clone(), adds: bin.points });
        terms.push(&one.expression, Measure::Bins(bins.collect(), one.otherwise), one.missing);
    }
    let slope = core::f64::consts::LN_2 / config.points_to_double_odds;
    terms.into_estimator(config.base_points, (-config.target_points, slope, libm::log(config.target_odds)))
}

fn regression(catalog: &TenantCatalog, names: &mut Names, config: &LogisticRegression) -> Estimator {
    let mut terms = Terms::new(catalog, names);
    for one in &config.features {
        let measure = Measure::Scaled { coefficient: one.coefficient, mean: one.mean, scale: one.scale };
        let missing = one.missing.and_then(|x| measure.of(&Value::Number(x)));
        terms.push(&one.expression, measure, missing);
    }
    terms.into_estimator(config.intercept, AS_IT_IS)
}

fn bayesian(catalog: &TenantCatalog, names: &mut Names, config: &Bayesian) -> Estimator {
    let mut terms = Terms::new(catalog, names);
    for one in &config.predictors {
        let measure = match &one.gaussian {
            Some(Gaussian { positive, negative }) => Measure::Normals {
                positive: positive.clone(),
                negative: negative.clone(),
                constant: log_ratio(negative.deviation, positive.deviation),
            },
            None => {
                let bins = one.bins.iter().map(|bin| Bin {
                    from: bin.from,
                    to: bin.to,
                    values: bin.values.clone(),
                    adds: log_ratio(bin.positive, bin.negative),
                });
                let otherwise = one.otherwise.as_ref().map_or(0.0, |one| log_ratio(one.positive, one.negative));
                Measure::Bins(bins.collect(), otherwise)
            }
        };
        // Of what is not known nothing follows.
        terms.push(&one.expression, measure, Some(0.0));
    }
    terms.into_estimator(log_ratio(config.prior, 1.0 - config.prior), AS_IT_IS)
}

impl Estimator {
    /// The sum of what is the same for all offers; `None` if a value is missing.
    fn head(&self, world: &World<'_>) -> Option<f64> {
        self.of_request.iter().try_fold(self.constant, |sum, term| Some(sum + term.add(&term.program.eval(world))?))
    }

    /// The sum of what the offer adds.
    fn tail(&self, at: &OfferWorld<'_, '_>) -> Option<f64> {
        self.of_offer.iter().try_fold(0.0, |sum, term| Some(sum + term.add(&term.program.eval(at))?))
    }

    /// P of a whole sum; `None` if it is not finite.
    fn probability(&self, sum: f64) -> Option<f64> {
        let z = (sum + self.offset) * self.slope + self.shift;
        z.is_finite().then(|| (1.0 / (1.0 + libm::exp(-z))).clamp(LEAST, 1.0 - LEAST))
    }

    /// Whether a term reads one of these fields of the offer, except by computed ones.
    fn reads_any(&self, fields: &[u16]) -> bool {
        self.of_offer.iter().any(|term| term.program.offer_fields().iter().any(|field| fields.contains(field)))
    }
}

/// What the offers of a segment add to a model's sum.
#[derive(Clone, Debug)]
pub struct Tails {
    /// By position; NaN where a value is missing.
    sums: Box<[f64]>,
    /// Positions it must be evaluated for.
    open: Option<Bits>,
}

impl Tails {
    fn new(segment: &Segment, shared: &Shared, estimator: &Estimator) -> Self {
        let world = World::of_nothing();
        let (mut sums, mut open) = (vec![0.0; segment.len], Bits::none(segment.len));
        let is_timeless = |term: &Term| term.program.facts().is_empty() && !term.program.reads_time();
        let is_timeless = estimator.of_offer.iter().all(is_timeless);
        let fields = || estimator.of_offer.iter().flat_map(|term| term.program.offer_fields());
        for position in 0..segment.len as u32 {
            if is_timeless && fields().all(|field| segment.fields[usize::from(*field)].is_stored(position)) {
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
        if estimator.of_offer.is_empty() || !scoring.any(|named| named == model.key) {
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

/// Whether P may be drawn where this model is named.
pub(crate) fn is_drawn(shared: &Shared, model: ModelKey) -> bool {
    members(shared, model).into_iter().any(|model| {
        let place = shared.models.binary_search_by_key(&model, |model| model.key);
        place.is_ok_and(|place| !matches!(shared.models[place].kind, ModelKind::Estimator(_)))
    })
}

/// The models that may score where this one is named.
fn members(shared: &Shared, model: ModelKey) -> SmallVec<[ModelKey; 2]> {
    let place = shared.models.binary_search_by_key(&model, |model| model.key);
    match place.map(|place| &shared.models[place].kind) {
        Ok(ModelKind::Versus { champion, challenger, .. }) => smallvec![*champion, *challenger],
        Ok(ModelKind::Estimator(_) | ModelKind::Thompson { .. } | ModelKind::EpsilonGreedy { .. }) | Err(_) => {
            smallvec![model]
        }
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
