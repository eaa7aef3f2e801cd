//! Models, compiled (docs/adr/0021): what each is here, how estimators add up in [`estimator`], what follows of that from the offers
//! alone in [`tails`], and what a decision makes of it in [`asked`].

mod asked;
mod estimator;
mod tails;

use smallvec::{SmallVec, smallvec};

use super::shared::Shared;
use super::slots::Names;
use crate::catalog::TenantCatalog;
use crate::keys::ModelKey;
use crate::model::Status;
use crate::model::algorithm::ModelConfig;

pub use asked::Models;
pub use estimator::Estimator;
pub use tails::Tails;
pub(crate) use tails::tails;

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

/// All models of a catalogue, by key.
pub(crate) fn compile(catalog: &TenantCatalog, names: &mut Names) -> Box<[Model]> {
    let compiled = catalog.models().iter().filter_map(|row| {
        let config = row.body.typed()?;
        Some(Model {
            key: row.key,
            name: row.body.key.clone().unwrap_or_default(),
            active: row.body.status == Status::Active,
            kind: match &config {
                ModelConfig::Scorecard(config) => ModelKind::Estimator(estimator::scorecard(catalog, names, config)),
                ModelConfig::LogisticRegression(config) => {
                    ModelKind::Estimator(estimator::regression(catalog, names, config))
                }
                ModelConfig::Bayesian(config) => ModelKind::Estimator(estimator::bayesian(catalog, names, config)),
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
