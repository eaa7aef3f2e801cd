//! Models: what is expected of an offer before outcomes tell (domain.md §8, docs/adr/0021).

use crate::model::Status;
use crate::model::fault::Faults;
use crate::model::record::{Field, choice, record};
use crate::value::Value;

record! {
    /// A model that P comes from. `config` holds the members that its `model_type` names; the catalogue reads it with
    /// [`ModelConfig::read`] and stores it canonical.
    pub struct AlgorithmModel {
        /// Display name, unique in the tenant.
        pub name: String => "name",
        /// Free text.
        pub description: String => "description" = String::new(),
        /// One that is not active cannot score: 0.5 stands in its place.
        pub status: Status => "status" = Status::Active,
        /// What flows and offers call it, never changed; default: slug of the name; unique in the tenant.
        pub key: Option<String> => "key" = None,
        /// How it comes to a P.
        pub model_type: ModelType => "modelType",
        /// Its parameters.
        pub config: Value => "config" = Value::map::<&str>([]),
    }
}

choice! {
    /// How a model comes to a P.
    pub enum ModelType {
        /// Points for what features are.
        Scorecard => "scorecard",
        /// A weighted sum of features.
        LogisticRegression => "logistic_regression",
        /// How much likelier each feature is where the outcome is good.
        Bayesian => "bayesian",
        /// A draw from what outcomes leave open.
        ThompsonBandit => "thompson_bandit",
        /// What outcomes say, now and then anything.
        EpsilonGreedy => "epsilon_greedy",
        /// Would learn from each outcome's customer; not available.
        OnlineLearner => "online_learner",
        /// Two others: one scores some customers, the other the rest.
        ChampionChallenger => "champion_challenger",
    }
}

record! {
    /// `P = 1 / (1 + 2^((targetPoints − points) / pointsToDoubleOdds) / targetOdds)`.
    pub struct Scorecard {
        /// What everybody has.
        pub base_points: f64 => "basePoints" = 0.0,
        /// What is looked at.
        pub characteristics: Vec<Characteristic> => "characteristics",
        /// Points that stand for the target odds.
        pub target_points: f64 => "targetPoints" = 0.0,
        /// Good to bad at the target points, > 0.
        pub target_odds: f64 => "targetOdds" = 1.0,
        /// So many points more double the odds; ≠ 0.
        pub points_to_double_odds: f64 => "pointsToDoubleOdds" = 20.0,
    }
}

record! {
    /// One thing that a scorecard looks at.
    pub struct Characteristic {
        /// What it is worth: a number, boolean or text.
        pub expression: String => "expression",
        /// Which values give which points; they do not overlap.
        pub bins: Vec<PointBin> => "bins",
        /// Points of a value in none of them.
        pub otherwise: f64 => "otherwise" = 0.0,
        /// Points where there is no value; without them the model then cannot score.
        pub missing: Option<f64> => "missing" = None,
    }
}

record! {
    /// Values with the same points: numbers from `from` up to below `to`, or those listed.
    pub struct PointBin {
        /// Least number.
        pub from: Option<f64> => "from" = None,
        /// First number above.
        pub to: Option<f64> => "to" = None,
        /// Numbers, booleans, texts.
        pub values: Vec<Value> => "values" = Vec::new(),
        /// What they give.
        pub points: f64 => "points",
    }
}

record! {
    /// `P = 1 / (1 + e^−z)`, `z = intercept + Σ coefficient · (x − mean) / scale`.
    pub struct LogisticRegression {
        /// Log-odds where every term is 0.
        pub intercept: f64 => "intercept" = 0.0,
        /// Its terms.
        pub features: Vec<Feature> => "features",
    }
}

record! {
    /// One term of a regression.
    pub struct Feature {
        /// x: a number, or a boolean that counts as 1 or 0.
        pub expression: String => "expression",
        /// Its weight.
        pub coefficient: f64 => "coefficient",
        /// Taken from x.
        pub mean: f64 => "mean" = 0.0,
        /// Divides what is left, > 0.
        pub scale: f64 => "scale" = 1.0,
        /// x where there is none; without it the model then cannot score.
        pub missing: Option<f64> => "missing" = None,
    }
}

record! {
    /// Naive Bayes: `odds = prior / (1 − prior) · Π p(x | positive) / p(x | negative)`. A predictor without a value says nothing.
    pub struct Bayesian {
        /// P before anything is known of the customer, above 0 and below 1.
        pub prior: f64 => "prior" = 0.5,
        /// What is looked at.
        pub predictors: Vec<Predictor> => "predictors",
    }
}

record! {
    /// One thing that naive Bayes looks at: by bins, or as normally distributed.
    pub struct Predictor {
        /// What it is worth.
        pub expression: String => "expression",
        /// How likely which values are; they do not overlap.
        pub bins: Vec<LikelihoodBin> => "bins" = Vec::new(),
        /// Likelihoods of a value in none of the bins; without them it says nothing.
        pub otherwise: Option<Likelihood> => "otherwise" = None,
        /// In place of bins: how a number is distributed.
        pub gaussian: Option<Gaussian> => "gaussian" = None,
    }
}

record! {
    /// Values that are alike: numbers from `from` up to below `to`, or those listed.
    pub struct LikelihoodBin {
        /// Least number.
        pub from: Option<f64> => "from" = None,
        /// First number above.
        pub to: Option<f64> => "to" = None,
        /// Numbers, booleans, texts.
        pub values: Vec<Value> => "values" = Vec::new(),
        /// How likely they are where the outcome is good, above 0, at most 1.
        pub positive: f64 => "positive",
        /// … where it is not.
        pub negative: f64 => "negative",
    }
}

record! {
    /// How likely something is.
    pub struct Likelihood {
        /// Where the outcome is good, above 0, at most 1.
        pub positive: f64 => "positive",
        /// Where it is not.
        pub negative: f64 => "negative",
    }
}

record! {
    /// Two normal distributions.
    pub struct Gaussian {
        /// Where the outcome is good.
        pub positive: Normal => "positive",
        /// Where it is not.
        pub negative: Normal => "negative",
    }
}

record! {
    /// A normal distribution.
    pub struct Normal {
        /// Its mean.
        pub mean: f64 => "mean",
        /// Its standard deviation, > 0.
        pub deviation: f64 => "deviation",
    }
}

record! {
    /// P is drawn from `Beta(k + w·prior, n − k + w·(1 − prior))` for each decision and offer.
    pub struct ThompsonBandit {
        /// w: how many propositions' worth the prior counts, 0.1–1,000.
        pub prior_weight: f64 => "priorWeight" = 10.0,
    }
}

record! {
    /// A share of decisions knows nothing; the others go by what was learned.
    pub struct EpsilonGreedy {
        /// That share, 0–1.
        pub epsilon: f64 => "epsilon" = 0.1,
    }
}

record! {
    /// A share of customers is scored by another model than the rest, always the same ones.
    pub struct ChampionChallenger {
        /// The model, by key, that scores most.
        pub champion: String => "champion",
        /// The one that scores the share, and of the rest only tells what it would say.
        pub challenger: String => "challenger",
        /// That share, 0–100.
        pub percent: f64 => "percent" = 0.0,
    }
}

/// The parameters of a model, by type.
#[derive(Clone, Debug, PartialEq)]
pub enum ModelConfig {
    /// See there.
    Scorecard(Scorecard),
    /// See there.
    LogisticRegression(LogisticRegression),
    /// See there.
    Bayesian(Bayesian),
    /// See there.
    ThompsonBandit(ThompsonBandit),
    /// See there.
    EpsilonGreedy(EpsilonGreedy),
    /// See there.
    ChampionChallenger(ChampionChallenger),
}

impl ModelConfig {
    /// Reads the config of a type. `None` if it has faults, or the type is not available.
    pub fn read(model_type: ModelType, config: &Value, faults: &mut Faults) -> Option<Self> {
        Some(match model_type {
            ModelType::Scorecard => ModelConfig::Scorecard(Field::read(config, faults)?),
            ModelType::LogisticRegression => ModelConfig::LogisticRegression(Field::read(config, faults)?),
            ModelType::Bayesian => ModelConfig::Bayesian(Field::read(config, faults)?),
            ModelType::ThompsonBandit => ModelConfig::ThompsonBandit(Field::read(config, faults)?),
            ModelType::EpsilonGreedy => ModelConfig::EpsilonGreedy(Field::read(config, faults)?),
            ModelType::ChampionChallenger => ModelConfig::ChampionChallenger(Field::read(config, faults)?),
            ModelType::OnlineLearner => return None,
        })
    }

    /// With every default written out.
    pub fn write(&self) -> Value {
        match self {
            ModelConfig::Scorecard(config) => config.write(),
            ModelConfig::LogisticRegression(config) => config.write(),
            ModelConfig::Bayesian(config) => config.write(),
            ModelConfig::ThompsonBandit(config) => config.write(),
            ModelConfig::EpsilonGreedy(config) => config.write(),
            ModelConfig::ChampionChallenger(config) => config.write(),
        }
    }

    /// The expressions of its features, in order; only estimators have any.
    pub fn expressions(&self) -> Vec<&str> {
        match self {
            ModelConfig::Scorecard(config) => {
                config.characteristics.iter().map(|one| one.expression.as_str()).collect()
            }
            ModelConfig::LogisticRegression(config) => {
                config.features.iter().map(|one| one.expression.as_str()).collect()
            }
            ModelConfig::Bayesian(config) => config.predictors.iter().map(|one| one.expression.as_str()).collect(),
            ModelConfig::ThompsonBandit(_) | ModelConfig::EpsilonGreedy(_) | ModelConfig::ChampionChallenger(_) => {
                Vec::new()
            }
        }
    }

    /// The models that it leaves scoring to, by key.
    pub fn members(&self) -> Option<[&str; 2]> {
        match self {
            ModelConfig::ChampionChallenger(config) => Some([&config.champion, &config.challenger]),
            ModelConfig::Scorecard(_)
            | ModelConfig::LogisticRegression(_)
            | ModelConfig::Bayesian(_)
            | ModelConfig::ThompsonBandit(_)
            | ModelConfig::EpsilonGreedy(_) => None,
        }
    }
}

impl AlgorithmModel {
    /// The typed config; every stored model has one.
    pub fn typed(&self) -> Option<ModelConfig> {
        ModelConfig::read(self.model_type, &self.config, &mut Faults::new())
    }
}
