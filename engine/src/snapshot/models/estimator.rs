//! Estimators: (constant + what the request adds) + what the offer adds, made a probability. The first is added up once a request, the
//! second once a snapshot where it follows from what is stored of the offer.

use std::sync::Arc;

use crate::catalog::{TenantCatalog, is_of_offer};
use crate::expr::{Program, compare};
use crate::model::algorithm::{Bayesian, Gaussian, LogisticRegression, Normal, Scorecard};
use crate::snapshot::rules::program;
use crate::snapshot::slots::Names;
use crate::snapshot::world::{OfferWorld, World};
use crate::value::Value;

/// What a model says is at least this, and at most 1 less it: a P of 0 would remove an offer.
pub(super) const LEAST: f64 = 1e-9;

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

/// Points by bins.
pub(super) fn scorecard(catalog: &TenantCatalog, names: &mut Names, config: &Scorecard) -> Estimator {
    let mut terms = Terms::new(catalog, names);
    for one in &config.characteristics {
        let bins =
            one.bins.iter().map(|bin| Bin { from: bin.from, to: bin.to, values: bin.values.clone(), adds: bin.points });
        terms.push(&one.expression, Measure::Bins(bins.collect(), one.otherwise), one.missing);
    }
    let slope = core::f64::consts::LN_2 / config.points_to_double_odds;
    terms.into_estimator(config.base_points, (-config.target_points, slope, libm::log(config.target_odds)))
}

/// A weighted sum.
pub(super) fn regression(catalog: &TenantCatalog, names: &mut Names, config: &LogisticRegression) -> Estimator {
    let mut terms = Terms::new(catalog, names);
    for one in &config.features {
        let measure = Measure::Scaled { coefficient: one.coefficient, mean: one.mean, scale: one.scale };
        let missing = one.missing.and_then(|x| measure.of(&Value::Number(x)));
        terms.push(&one.expression, measure, missing);
    }
    terms.into_estimator(config.intercept, AS_IT_IS)
}

/// Naive Bayes, as a sum of logarithms.
pub(super) fn bayesian(catalog: &TenantCatalog, names: &mut Names, config: &Bayesian) -> Estimator {
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
    pub(super) fn head(&self, world: &World<'_>) -> Option<f64> {
        self.of_request.iter().try_fold(self.constant, |sum, term| Some(sum + term.add(&term.program.eval(world))?))
    }

    /// The sum of what the offer adds.
    pub(super) fn tail(&self, at: &OfferWorld<'_, '_>) -> Option<f64> {
        self.of_offer.iter().try_fold(0.0, |sum, term| Some(sum + term.add(&term.program.eval(at))?))
    }

    /// P of a whole sum; `None` if it is not finite.
    pub(super) fn probability(&self, sum: f64) -> Option<f64> {
        let z = (sum + self.offset) * self.slope + self.shift;
        z.is_finite().then(|| (1.0 / (1.0 + libm::exp(-z))).clamp(LEAST, 1.0 - LEAST))
    }

    /// Whether offers add anything.
    pub(super) fn looks_at_offers(&self) -> bool {
        !self.of_offer.is_empty()
    }

    /// Whether what an offer adds follows from its fields alone.
    pub(super) fn is_timeless(&self) -> bool {
        self.of_offer.iter().all(|term| term.program.facts().is_empty() && !term.program.reads_time())
    }

    /// The fields of offers that it reads, some of them several times.
    pub(super) fn offer_fields(&self) -> impl Iterator<Item = u16> {
        self.of_offer.iter().flat_map(|term| term.program.offer_fields()).copied()
    }

    /// Whether a term reads one of these fields of the offer, except by computed ones.
    pub(super) fn reads_any(&self, fields: &[u16]) -> bool {
        self.offer_fields().any(|field| fields.contains(&field))
    }
}
