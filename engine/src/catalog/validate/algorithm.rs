//! Models, and the keys by which flows and offers name them.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::catalog::command::EntityKind;
use crate::catalog::entity::{Authored, Context, Findings, shown, stored_in};
use crate::catalog::index::Thing;
use crate::catalog::refusal::Touched;
use crate::catalog::slug::slug;
use crate::catalog::tenant::TenantCatalog;
use crate::catalog::validate::{formula, text};
use crate::expr::compare;
use crate::keys::ModelKey;
use crate::limits;
use crate::model::Entity;
use crate::model::algorithm::{
    AlgorithmModel, Bayesian, Gaussian, LogisticRegression, ModelConfig, ModelType, Predictor, Scorecard,
};
use crate::model::fault::Faults;
use crate::model::flow::{FlowConfig, Node};
use crate::value::Value;

/// Users of a model that a refused deletion lists.
const USERS_SHOWN: usize = 10;
/// Scales, deviations and odds are at most this.
const LARGEST: f64 = 1e12;

impl Authored for AlgorithmModel {
    stored_in!(models: ModelKey, EntityKind::Model, at most limits::MODELS_MAX);
    const UNIQUE_NAME: bool = true;
    const DEPENDENT: &'static [(&'static str, &'static str)] = &[("modelType", "config")];

    fn stand_in() -> Value {
        Value::map([("name", Value::text("-")), ("modelType", Value::text("thompson_bandit"))])
    }

    fn check(&mut self, context: &Context<'_, Self>, findings: &mut Findings) {
        let tenant = context.tenant;
        let faults = &mut findings.faults;
        text::check_name("name", &self.name, faults);
        text::check_description(&self.description, faults);
        let key = self.key.get_or_insert_with(|| slug(&self.name, '-')).clone();
        text::check_key("key", &key, faults);
        if self.model_type == ModelType::OnlineLearner {
            let others = ModelType::ALL.iter().filter(|one| **one != ModelType::OnlineLearner);
            let others: Vec<&str> = others.map(|one| one.as_str()).collect();
            faults.add_at("modelType", format!("online_learner is not supported yet; {} are", others.join(", ")));
        }
        faults.within("config", |faults| {
            let Some(config) = ModelConfig::read(self.model_type, &self.config, faults) else { return };
            check_config(tenant, &config, faults);
            if config.members().is_some() && member_of(tenant, &key).next().is_some() {
                faults.add("a model that another one leaves scoring to cannot do so itself");
            }
            formula::check_reads(tenant, &names_read(&config), faults);
            self.config = config.write();
        });
        if tenant.index.model_keys.get(&key).is_some_and(|taken| Some(*taken) != context.key()) {
            findings.conflicts.add_at("key", format!("another algorithm model has the key {:?}", shown(&key)));
        }
        if context.before.is_some_and(|row| row.body.key.as_ref() != Some(&key)) {
            findings.conflicts.add_at("key", "cannot change: flows and offers name the model by it");
        }
    }

    fn references(&self, _tenant: &TenantCatalog) -> Vec<Thing> {
        Vec::new()
    }

    fn reindex(tenant: &mut TenantCatalog, key: ModelKey, before: Option<&Self>, after: Option<&Self>) {
        let reads = |body: Option<&Self>| body.and_then(Self::typed).map(|config| names_read(&config));
        tenant.index.reread(&reads(before).unwrap_or_default(), reads(after).unwrap_or_default());
        if let Some(word) = before.and_then(|body| body.key.as_ref()) {
            tenant.index.model_keys.remove(word);
        }
        if let Some(word) = after.and_then(|body| body.key.as_ref()) {
            tenant.index.model_keys.insert(word.clone(), key);
        }
    }

    fn touched(
        _tenant: &TenantCatalog,
        _key: ModelKey,
        _before: Option<&Self>,
        _after: Option<&Self>,
        effect: &mut Vec<Touched>,
    ) {
        effect.push(Touched::Shared);
    }
}

fn names_read(config: &ModelConfig) -> BTreeSet<String> {
    config.expressions().into_iter().flat_map(formula::names_read).collect()
}

/// Checks that a model named by `member` exists.
pub(crate) fn check_named(tenant: &TenantCatalog, member: &str, key: Option<&str>, faults: &mut Faults) {
    let Some(key) = key else { return };
    if tenant.model_by_key(key).is_none() {
        faults.add_at(member, format!("no algorithm model has the key {:?}", shown(key)));
    }
}

/// Ids of the models that leave scoring to the one of this key.
fn member_of<'a>(tenant: &'a TenantCatalog, key: &'a str) -> impl Iterator<Item = &'a str> {
    let names = move |row: &&Arc<Entity<ModelKey, AlgorithmModel>>| {
        row.body.typed().is_some_and(|config| config.members().is_some_and(|members| members.contains(&key)))
    };
    tenant.models.iter().filter(names).map(|row| row.id.as_str())
}

/// Adds a conflict for each flow in force, offer and model that names the model; some of them, where there are many.
/// O(offers + flows): nothing is kept for it.
pub(crate) fn add_users(tenant: &TenantCatalog, key: &str, conflicts: &mut Faults) {
    let named = |config: &FlowConfig| {
        config.all_nodes().into_iter().any(|node| match &node.node {
            Node::Score(score) => {
                let swapped = score.overrides.iter().filter_map(|one| one.model_key.as_deref());
                score.model_key.as_deref().into_iter().chain(swapped).any(|model| model == key)
            }
            Node::ScoreByExpression(score) => score.model_key.as_deref() == Some(key),
            Node::Inventory(_)
            | Node::MatchCreatives(_)
            | Node::Enrich(_)
            | Node::Qualify(_)
            | Node::ContactPolicy(_)
            | Node::Filter(_)
            | Node::Conditional(_)
            | Node::CallFlow(_)
            | Node::Optimize(_)
            | Node::Rank(_)
            | Node::Group(_)
            | Node::Compute(_)
            | Node::SetProperties(_)
            | Node::Response(_) => false,
        })
    };
    let flows = tenant.flows.iter().filter(|row| {
        let version = tenant.current_version(row.key);
        version.is_some_and(|version| named(&version.config))
    });
    let offers = tenant.offers.iter().filter(|row| row.body.eligibility.model_reference.as_deref() == Some(key));
    let flows = flows.map(|row| format!("decision flow {} scores by it", row.id));
    let offers = offers.map(|row| format!("the eligibility of offer {} refers to it", row.id));
    let models = member_of(tenant, key).map(|id| format!("algorithm model {id} leaves scoring to it"));
    flows.chain(offers).chain(models).take(USERS_SHOWN).for_each(|user| conflicts.add(user));
}

fn check_config(tenant: &TenantCatalog, config: &ModelConfig, faults: &mut Faults) {
    match config {
        ModelConfig::Scorecard(config) => check_scorecard(tenant, config, faults),
        ModelConfig::LogisticRegression(config) => check_regression(tenant, config, faults),
        ModelConfig::Bayesian(config) => check_bayesian(tenant, config, faults),
        ModelConfig::ThompsonBandit(config) => {
            text::check_range("priorWeight", config.prior_weight, 0.1, 1_000.0, faults);
        }
        ModelConfig::EpsilonGreedy(config) => text::check_range("epsilon", config.epsilon, 0.0, 1.0, faults),
        ModelConfig::ChampionChallenger(config) => {
            text::check_range("percent", config.percent, 0.0, 100.0, faults);
            for (member, key) in [("champion", &config.champion), ("challenger", &config.challenger)] {
                check_named(tenant, member, Some(key), faults);
                let row = tenant.model_by_key(key);
                if row.is_some_and(|row| row.body.model_type == ModelType::ChampionChallenger) {
                    faults.add_at(member, "must be a model that scores itself");
                }
            }
            if config.champion == config.challenger {
                faults.add_at("challenger", "must be another model than the champion");
            }
        }
    }
}

fn check_scorecard(tenant: &TenantCatalog, config: &Scorecard, faults: &mut Faults) {
    text::check_positive("targetOdds", config.target_odds, LARGEST, faults);
    if config.points_to_double_odds == 0.0 {
        faults.add_at("pointsToDoubleOdds", "must not be 0");
    }
    each("characteristics", &config.characteristics, faults, |one, faults| {
        formula::check_feature(tenant, "expression", &one.expression, true, faults);
        let bins: Vec<Bin<'_>> = one.bins.iter().map(|bin| Bin::new(bin.from, bin.to, &bin.values)).collect();
        check_bins(&bins, faults);
    });
}

fn check_regression(tenant: &TenantCatalog, config: &LogisticRegression, faults: &mut Faults) {
    each("features", &config.features, faults, |one, faults| {
        formula::check_feature(tenant, "expression", &one.expression, false, faults);
        text::check_positive("scale", one.scale, LARGEST, faults);
    });
}

fn check_bayesian(tenant: &TenantCatalog, config: &Bayesian, faults: &mut Faults) {
    check_likelihood("prior", config.prior, faults);
    if config.prior >= 1.0 {
        faults.add_at("prior", "must be less than 1");
    }
    each("predictors", &config.predictors, faults, |one, faults| check_predictor(tenant, one, faults));
}

fn check_predictor(tenant: &TenantCatalog, one: &Predictor, faults: &mut Faults) {
    let in_bins = one.gaussian.is_none();
    formula::check_feature(tenant, "expression", &one.expression, in_bins, faults);
    if let Some(Gaussian { positive, negative }) = &one.gaussian {
        if !one.bins.is_empty() || one.otherwise.is_some() {
            faults.add_at("gaussian", "takes the place of bins and otherwise: give it or them");
        }
        faults.within("gaussian", |faults| {
            for (member, normal) in [("positive", positive), ("negative", negative)] {
                faults.within(member, |faults| {
                    text::check_positive("deviation", normal.deviation, LARGEST, faults);
                });
            }
        });
        return;
    }
    let bins: Vec<Bin<'_>> = one.bins.iter().map(|bin| Bin::new(bin.from, bin.to, &bin.values)).collect();
    check_bins(&bins, faults);
    faults.within("bins", |faults| {
        for (index, bin) in one.bins.iter().enumerate() {
            faults.within(&index.to_string(), |faults| {
                check_likelihood("positive", bin.positive, faults);
                check_likelihood("negative", bin.negative, faults);
            });
        }
    });
    if let Some(otherwise) = &one.otherwise {
        faults.within("otherwise", |faults| {
            check_likelihood("positive", otherwise.positive, faults);
            check_likelihood("negative", otherwise.negative, faults);
        });
    }
}

/// Checks a list of features: there are some, not too many, and each is sound.
fn each<T>(member: &str, items: &[T], faults: &mut Faults, check: impl Fn(&T, &mut Faults)) {
    text::check_count(member, items, limits::MODEL_FEATURES_MAX, faults);
    faults.within(member, |faults| {
        if items.is_empty() {
            faults.add("must not be empty");
        }
        for (index, item) in items.iter().enumerate().take(limits::MODEL_FEATURES_MAX) {
            faults.within(&index.to_string(), |faults| check(item, faults));
        }
    });
}

/// A probability that has a logarithm.
fn check_likelihood(member: &str, likelihood: f64, faults: &mut Faults) {
    text::check_positive(member, likelihood, 1.0, faults);
}

/// Which values are alike.
struct Bin<'a> {
    from: f64,
    to: f64,
    values: &'a [Value],
}

impl<'a> Bin<'a> {
    /// Without either end, and with values, no number is in its range.
    fn new(from: Option<f64>, to: Option<f64>, values: &'a [Value]) -> Self {
        let is_range = from.is_some() || to.is_some();
        let (least, most) = if is_range { (f64::NEG_INFINITY, f64::INFINITY) } else { (0.0, 0.0) };
        Bin { from: from.unwrap_or(least), to: to.unwrap_or(most), values }
    }

    fn holds(&self, value: &Value) -> bool {
        value.as_number().is_some_and(|number| self.from <= number && number < self.to)
    }

    /// Whether a value may be in both.
    fn meets(&self, other: &Bin<'_>) -> bool {
        let ranges = self.from < other.to && other.from < self.to && self.from < self.to && other.from < other.to;
        let listed = |value: &Value| other.holds(value) || compare::has_member(other.values, value);
        ranges || self.values.iter().any(listed) || other.values.iter().any(|value| self.holds(value))
    }
}

/// Checks the bins of a feature, at the feature: each holds something, and no value is in two.
fn check_bins(bins: &[Bin<'_>], faults: &mut Faults) {
    text::check_count("bins", bins, limits::MODEL_BINS_MAX, faults);
    faults.within("bins", |faults| {
        if bins.is_empty() {
            faults.add("must not be empty");
        }
        if bins.iter().map(|bin| bin.values.len()).sum::<usize>() > limits::MODEL_VALUES_MAX {
            faults.add(format!("must list at most {} values", limits::MODEL_VALUES_MAX));
            return;
        }
        for (index, bin) in bins.iter().enumerate().take(limits::MODEL_BINS_MAX) {
            faults.within(&index.to_string(), |faults| {
                if bin.from >= bin.to && bin.values.is_empty() {
                    faults.add("must have values, or from below to");
                } else if bin.from > bin.to {
                    faults.add_at("to", "must be above from");
                }
                let is_plain = |value: &Value| matches!(value, Value::Number(_) | Value::Bool(_) | Value::Text(_));
                if let Some(place) = bin.values.iter().position(|value| !is_plain(value)) {
                    faults.within("values", |faults| {
                        faults.add_at(&place.to_string(), "must be a number, boolean or text");
                    });
                }
                if let Some(other) = bins[..index].iter().position(|other| bin.meets(other)) {
                    faults.add(format!("holds values that bin {other} holds too"));
                }
            });
        }
    });
}
