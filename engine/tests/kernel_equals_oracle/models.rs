//! What models say and draw, worked out by hand, and agreed on by both evaluations.

use proffer_engine::catalog::{EntityKind, Op};
use proffer_engine::decide::decision::{Factors, RemovalReason};
use proffer_engine::keys::CategoryKey;
use proffer_engine::learn::{PropensitySource, Tallies};
use proffer_engine::profile::evidence::Tally;
use proffer_engine::value::Value;

use super::catalogue::Made;
use super::scene::{Members, Scene, close, number, text};
use super::*;

fn map(members: Members<'_>) -> Value {
    Value::map(members.to_vec())
}

impl Scene {
    fn model(&mut self, key: &str, kind: &str, config: Members<'_>) -> &mut Self {
        let config = map(config);
        self.create(EntityKind::Model, key, &[("name", text(key)), ("modelType", text(kind)), ("config", config)]);
        self
    }

    /// A flow that qualifies and scores by P of this model.
    fn scores_by(&mut self, key: &str) -> &mut Self {
        let score = map(&[("method", text("propensity")), ("modelKey", text(key))]);
        self.flow(map(&[]), &[("qualify", 1.0, map(&[])), ("score", 2.0, score)])
    }

    /// What is explained of the offers that are proposed, by id.
    fn told(&self) -> Vec<(String, Factors)> {
        let decision = self.decide(&self.request());
        let factors = decision.explanation.expect("it was asked for").factors;
        self.proposed(&self.request()).into_iter().zip(factors).collect()
    }

    fn p(&self, offer: &str) -> f64 {
        self.told().into_iter().find(|(id, _)| id == offer).expect("it is proposed").1.propensity
    }
}

fn logistic(z: f64) -> f64 {
    1.0 / (1.0 + (-z).exp())
}

fn feature(expression: &str, coefficient: f64, more: Members<'_>) -> Value {
    let mut all = vec![("expression", text(expression)), ("coefficient", number(coefficient))];
    all.extend_from_slice(more);
    Value::map(all)
}

/// `0.5 · age / 10 − 0.02 · priority`, 20 where there is no age.
fn by_age_and_priority() -> [(&'static str, Value); 1] {
    let age = feature("customer.age", 0.5, &[("mean", number(30.0)), ("scale", number(10.0))]);
    [("features", Value::list([age, feature("offer.priority", -0.02, &[])]))]
}

#[test]
fn a_regression_adds_up_what_customer_and_offer_are() {
    let mut scene = Scene::new();
    scene.model("age", "logistic_regression", &by_age_and_priority()).scores_by("age");
    scene.offer("a", &[("priority", number(50.0))]).offer("b", &[("priority", number(10.0))]);
    scene.has("age", number(40.0));
    let told = scene.told();
    assert_eq!(
        told.iter().map(|(id, _)| id.as_str()).collect::<Vec<_>>(),
        ["b", "a"],
        "the less priority the likelier"
    );
    assert!(close(told[0].1.propensity, logistic(0.5 - 0.2)) && close(told[1].1.propensity, logistic(0.5 - 1.0)));
    assert!(told.iter().all(|(_, factors)| factors.source == PropensitySource::Model));
    assert!(!scene.decide(&scene.request()).remarks.degraded);
}

#[test]
fn a_model_that_misses_a_value_leaves_one_half_and_the_decision_says_so() {
    let mut scene = Scene::new();
    scene.model("age", "logistic_regression", &by_age_and_priority()).scores_by("age");
    scene.offer("a", &[]);
    let degraded = |scene: &Scene| scene.decide(&scene.request()).remarks.degraded;
    assert_eq!((scene.p("a"), scene.told()[0].1.source), (0.5, PropensitySource::Default));
    assert!(degraded(&scene), "nobody knows the age");
    scene.has("age", text("old"));
    assert!(degraded(&scene), "that is no number");
    scene.has("age", number(30.0));
    assert!(!degraded(&scene) && close(scene.p("a"), logistic(-0.02 * 50.0)));
    let pause = Op::Update {
        kind: EntityKind::Model,
        id: "age".to_owned(),
        patch: map(&[("status", text("paused"))]),
        expected: None,
    };
    scene.made.apply(pause);
    assert!(degraded(&scene) && scene.p("a") == 0.5, "it is not in force");

    let mut scene = Scene::new();
    let with = feature("customer.age", 0.5, &[("mean", number(30.0)), ("missing", number(40.0))]);
    scene.model("age", "logistic_regression", &[("features", Value::list([with]))]).scores_by("age").offer("a", &[]);
    assert!(!degraded(&scene) && close(scene.p("a"), logistic(5.0)), "40 stands for an age that is not known");
    // An answer without what a model scored has nothing to say of it.
    scene.made.apply(Op::Delete { kind: EntityKind::Offer, id: "a".to_owned(), force: true, has_history: false });
    assert!(!degraded(&scene));
}

#[test]
fn a_sum_beyond_numbers_cannot_score_and_a_large_one_is_no_certainty() {
    let mut scene = Scene::new();
    let large = feature("1e300", 1e300, &[]);
    scene.model("far", "logistic_regression", &[("features", Value::list([large]))]).scores_by("far").offer("a", &[]);
    assert!(scene.decide(&scene.request()).remarks.degraded && scene.p("a") == 0.5);
    let mut scene = Scene::new();
    let never = feature("1", -1e6, &[]);
    scene.model("far", "logistic_regression", &[("features", Value::list([never]))]).scores_by("far").offer("a", &[]);
    assert_eq!(scene.p("a"), 1e-9, "an offer of P 0 would be removed");
}

#[test]
fn a_scorecard_gives_points_by_bins_that_double_the_odds() {
    let mut scene = Scene::new();
    let points = |bin: Members<'_>, points: f64| {
        let mut all = bin.to_vec();
        all.push(("points", number(points)));
        Value::map(all)
    };
    let age = [points(&[("to", number(30.0))], 10.0), points(&[("from", number(30.0)), ("to", number(60.0))], 30.0)];
    let tier = [points(&[("values", Value::list([text("gold"), text("silver")]))], 25.0)];
    let characteristic = |expression: &str, bins: &[Value], more: Members<'_>| {
        let mut all = vec![("expression", text(expression)), ("bins", Value::list(bins.to_vec()))];
        all.extend_from_slice(more);
        Value::map(all)
    };
    let characteristics = [
        characteristic("customer.age", &age, &[("otherwise", number(-10.0))]),
        characteristic("customer.tier", &tier, &[("missing", number(5.0))]),
    ];
    let config = [
        ("basePoints", number(500.0)),
        ("targetPoints", number(530.0)),
        ("targetOdds", number(2.0)),
        ("pointsToDoubleOdds", number(20.0)),
        ("characteristics", Value::list(characteristics)),
    ];
    scene.model("card", "scorecard", &config).scores_by("card").offer("a", &[]);
    let odds = |points: f64| 2.0 * ((points - 530.0) / 20.0).exp2();
    let p = |points: f64| odds(points) / (1.0 + odds(points));
    // 30 is in the second bin; without a tier there are 5.
    scene.has("age", number(30.0));
    assert!(close(scene.p("a"), p(535.0)));
    scene.has("tier", text("silver"));
    assert!(close(scene.p("a"), p(555.0)));
    scene.has("tier", text("bronze")).has("age", number(60.0));
    assert!(close(scene.p("a"), p(490.0)), "neither is in a bin");
}

#[test]
fn naive_bayes_multiplies_odds_by_how_much_likelier_each_value_is() {
    let mut scene = Scene::new();
    let likely = |values: &[Value], positive: f64, negative: f64| {
        map(&[("values", Value::list(values.to_vec())), ("positive", number(positive)), ("negative", number(negative))])
    };
    let normal = |mean: f64, deviation: f64| map(&[("mean", number(mean)), ("deviation", number(deviation))]);
    let gaussian = map(&[("positive", normal(40.0, 10.0)), ("negative", normal(30.0, 5.0))]);
    let predictors = [
        map(&[
            ("expression", text("customer.tier")),
            ("bins", Value::list([likely(&[text("gold")], 0.6, 0.2)])),
            ("otherwise", map(&[("positive", number(0.4)), ("negative", number(0.8))])),
        ]),
        map(&[("expression", text("customer.age")), ("gaussian", gaussian)]),
    ];
    let config = [("prior", number(0.2)), ("predictors", Value::list(predictors))];
    scene.model("bayes", "bayesian", &config).scores_by("bayes").offer("a", &[]);
    let p = |odds: f64| odds / (1.0 + odds);
    assert!(close(scene.p("a"), 0.2), "of somebody unknown nothing follows");
    scene.has("tier", text("gold"));
    assert!(close(scene.p("a"), p(0.25 * 3.0)));
    scene.has("tier", text("bronze"));
    assert!(close(scene.p("a"), p(0.25 * 0.5)));
    let density = |x: f64, mean: f64, deviation: f64| (-0.5 * ((x - mean) / deviation).powi(2)).exp() / deviation;
    scene.has("age", number(37.0));
    let likelier = density(37.0, 40.0, 10.0) / density(37.0, 30.0, 5.0);
    assert!(close(scene.p("a"), p(0.25 * 0.5 * likelier)));
}

#[test]
fn outcomes_outweigh_a_model_as_they_come_in() {
    let mut scene = Scene::new();
    scene.model("age", "logistic_regression", &by_age_and_priority()).scores_by("age");
    scene.offer("a", &[("priority", number(0.0))]).offer("b", &[("priority", number(0.0))]).has("age", number(50.0));
    let said = logistic(1.0);
    let tally = |shown, positive| Tally { shown, positive };
    scene.tallies = Tallies { all: tally(5, 1), offers: vec![(scene.key("a"), tally(5, 1))], categories: Vec::new() };
    // Five of all are too few: b is what the model says, a is smoothed by that.
    assert!(close(scene.p("b"), said) && close(scene.p("a"), (1.0 + 10.0 * said) / 15.0));
    scene.tallies.all = tally(90, 9);
    let all = (9.0 + 10.0 * said) / 100.0;
    assert!(close(scene.p("b"), all) && close(scene.p("a"), (1.0 + 10.0 * all) / 15.0));
    let sources: Vec<_> = scene.told().iter().map(|(_, factors)| factors.source).collect();
    assert_eq!(sources, [PropensitySource::Offer, PropensitySource::Global]);
}

#[test]
fn overrides_swap_the_model_and_thresholds_look_at_the_flows() {
    let mut scene = Scene::new();
    let says = |z: f64| [("intercept", number(z)), ("features", Value::list([feature("1", 0.0, &[])]))];
    scene.model("low", "logistic_regression", &says(-2.0)).model("high", "logistic_regression", &says(2.0));
    let swap = |member: &str, value: &str| map(&[(member, text(value)), ("modelKey", text("high"))]);
    let overrides = Value::list([swap("channel", "web"), swap("productType", "card")]);
    let score = map(&[("method", text("propensity")), ("modelKey", text("low")), ("overrides", overrides)]);
    scene.flow(map(&[]), &[("qualify", 1.0, map(&[])), ("score", 2.0, score)]);
    scene.offer("a", &[]).offer("b", &[("productType", text("card"))]);
    assert!(close(scene.p("a"), logistic(2.0)), "on the web");
    let elsewhere = Request { channel: None, ..scene.request() };
    let scores: Vec<f64> = scene.decide(&elsewhere).propositions.iter().map(|one| one.score).collect();
    assert!(close(scores[0], logistic(2.0)) && close(scores[1], logistic(-2.0)), "{scores:?}");
    // Whatever the channel, a rule looks at P by the flow's own model, or the one for such offers.
    let config = map(&[("minPropensity", number(0.5))]);
    let rule = [("ruleType", text("propensity_threshold")), ("stage", text("eligibility")), ("config", config)];
    scene.rule("r", ("global", ""), &rule);
    assert_eq!(scene.proposed(&scene.request()), ["b"]);
}

#[test]
fn an_offers_own_model_gates_by_what_it_says_of_the_customer() {
    let mut scene = Scene::new();
    scene.model("age", "logistic_regression", &by_age_and_priority()).scores_by("age");
    scene.model("bandit", "thompson_bandit", &[]);
    let gated = |model: &str, least: f64| {
        [("eligibility", map(&[("propensityThreshold", number(least)), ("modelReference", text(model))]))]
    };
    scene.offer("a", &gated("age", 0.4)).offer("b", &gated("bandit", 0.5)).offer("c", &gated("bandit", 0.51));
    scene.has("age", number(50.0));
    assert_eq!(scene.proposed(&scene.request()), ["a", "b"], "what is drawn admits nothing and bars nothing");
    assert_eq!(scene.why(&scene.request(), "c"), Some(RemovalReason::Eligibility));
    let tally = |shown, positive| Tally { shown, positive };
    scene.tallies =
        Tallies { all: tally(500, 0), offers: vec![(scene.key("a"), tally(500, 0))], categories: Vec::new() };
    assert_eq!(scene.proposed(&scene.request()), ["a"], "it says 0.5 of the customer, whatever came of others");
    scene.has("age", number(20.0));
    assert_eq!(scene.proposed(&scene.request()), [""; 0]);

    // Of a customer of no age it says nothing: 0.5.
    let mut scene = Scene::new();
    scene.model("age", "logistic_regression", &by_age_and_priority());
    scene.offer("a", &gated("age", 0.5)).offer("b", &gated("age", 0.51));
    assert_eq!(scene.proposed(&scene.request()), ["a"]);
    assert!(scene.decide(&scene.request()).remarks.degraded);
}

#[test]
fn thompson_draws_anew_for_each_decision_around_what_outcomes_say() {
    let mut scene = Scene::new();
    scene.model("bandit", "thompson_bandit", &[]).scores_by("bandit");
    for id in ["a", "b", "c"] {
        scene.offer(id, &[]);
    }
    let tally = |shown, positive| Tally { shown, positive };
    let offers = vec![(scene.key("a"), tally(2_000, 400)), (scene.key("b"), tally(2_000, 200))];
    scene.tallies = Tallies { all: tally(4_000, 600), offers, categories: vec![(CategoryKey(9), tally(30, 3))] };
    let (mut sums, mut first) = (std::collections::BTreeMap::new(), std::collections::BTreeMap::new());
    for _ in 0..400 {
        scene.now = scene.now.plus_ms(1);
        let told = scene.told();
        *first.entry(told[0].0.clone()).or_insert(0) += 1;
        for (id, factors) in told {
            assert_eq!(factors.source, PropensitySource::Model);
            *sums.entry(id).or_insert(0.0) += factors.propensity / 400.0;
        }
    }
    // Means of 400 draws: a and b are known well, c is the prior of 0.15 with the weight of ten.
    assert!((sums["a"] - 0.2).abs() < 0.002 && (sums["b"] - 0.1).abs() < 0.002, "{sums:?}");
    assert!((sums["c"] - 0.15).abs() < 0.03, "{sums:?}");
    assert!(!first.contains_key("b") && first["a"] > 200 && first["c"] > 40, "what is unknown is tried: {first:?}");
}

#[test]
fn epsilon_greedy_explores_in_its_share_of_decisions() {
    let mut scene = Scene::new();
    scene.model("bandit", "epsilon_greedy", &[("epsilon", number(0.25))]).scores_by("bandit");
    scene.offer("a", &[]).offer("b", &[]);
    let tally = Tally { shown: 100, positive: 50 };
    scene.tallies = Tallies { all: tally, offers: vec![(scene.key("b"), tally)], categories: Vec::new() };
    let (mut explored, mut least) = (0, 1.0f64);
    for _ in 0..1_000 {
        scene.now = scene.now.plus_ms(1);
        let told = scene.told();
        let drawn: Vec<bool> = told.iter().map(|(_, told)| told.source == PropensitySource::Model).collect();
        assert!(drawn.iter().all(|one| *one == drawn[0]), "a decision explores or does not");
        explored += usize::from(drawn[0]);
        if drawn[0] {
            least = told.iter().fold(least, |least, (_, told)| least.min(told.propensity));
        }
    }
    assert!((200..300).contains(&explored), "{explored} of 1000");
    assert!(least < 0.05, "everything is possible there: {least}");
}

/// So many offers that scoring could stop early, were it not for what models say.
#[test]
fn the_best_of_many_is_found_whatever_models_say_and_draw() {
    let upside_down = Value::list([feature("offer.priority", -0.1, &[])]);
    let upside_down = [("intercept", number(6.0)), ("features", upside_down)];
    for (kind, config) in [("thompson_bandit", &[][..]), ("logistic_regression", &upside_down[..])] {
        let mut scene = Scene::new();
        scene.model("m", kind, config);
        let weights = [("propensityWeight", number(0.9)), ("emphasisWeight", number(0.1))];
        let score = [("method", text("formula")), ("formula", map(&weights)), ("modelKey", text("m"))];
        scene.flow(map(&[]), &[("score", 2.0, map(&score))]);
        for id in 0..1_300 {
            scene.offer(&format!("o{id}"), &[("priority", number(f64::from(id % 90) + 10.0))]);
        }
        let request = Request { explain: Explain::Off, limit: Some(3), ..scene.request() };
        assert_eq!(scene.decide(&request).propositions.len(), 3);
    }
}

#[test]
fn what_a_feature_reads_of_an_edited_category_reaches_the_updated_snapshot() {
    let mut scene = Scene::new();
    let field = |kind: &str, formula: Option<&str>| {
        let mut field = vec![("name", text("price")), ("type", text(kind))];
        field.extend(formula.map(|formula| ("formula", text(formula))));
        field.extend(formula.map(|_| ("outputType", text("number"))));
        Value::list([Value::map(field)])
    };
    scene.create(EntityKind::Category, "", &[("name", text("Cards")), ("customFields", field("number", None))]);
    let priced = [("categoryId", text("cat_cards")), ("customFields", map(&[("price", number(2.0))]))];
    scene.offer("a", &priced).model(
        "m",
        "logistic_regression",
        &[("features", Value::list([feature("price", 1.0, &[])]))],
    );
    scene.scores_by("m");
    assert!(close(scene.p("a"), logistic(2.0)));
    let snapshot = Snapshot::compile(&scene.made.tenant, scene.catalog(), scene.made.revision());
    let patch = map(&[("customFields", field("computed", Some("offer.priority / 10")))]);
    let edit = Op::Update { kind: EntityKind::Category, id: "cat_cards".to_owned(), patch, expected: None };
    let touched = scene.made.apply(edit);
    let snapshot = snapshot.update(scene.catalog(), &touched, scene.made.revision());
    let score = |made: &Made, snapshot: &Snapshot| {
        let decision = Kernel::default().decide(snapshot, &scene.world(), &scene.request());
        assert_eq!(decision, naive(scene.catalog(), &scene.world(), &scene.request()), "{:?}", made.revision());
        decision.propositions[0].score
    };
    assert!(close(score(&scene.made, &snapshot), logistic(5.0)));
}

#[test]
fn a_challenger_scores_its_share_of_customers_and_tells_of_the_rest() {
    let mut scene = Scene::new();
    let says = |z: f64| [("intercept", number(z)), ("features", Value::list([feature("1", 0.0, &[])]))];
    scene.model("old", "logistic_regression", &says(-1.0)).model("new", "logistic_regression", &says(1.0));
    let both = |percent: f64| [("champion", text("old")), ("challenger", text("new")), ("percent", number(percent))];
    scene.model("both", "champion_challenger", &both(0.0)).scores_by("both").offer("a", &[]);
    let edit = |scene: &mut Scene, patch: Members<'_>| {
        let patch = map(patch);
        scene.made.apply(Op::Update { kind: EntityKind::Model, id: "both".to_owned(), patch, expected: None });
        assert!(scene.made.refused.is_empty(), "{:?}", scene.made.refused);
    };
    let key = |scene: &Scene, key: &str| scene.catalog().model_by_key(key).map(|row| row.key);
    let told = |scene: &Scene| scene.told()[0].1;
    // 0 %: it only tells what it would say.
    let (old, new) = (key(&scene, "old"), key(&scene, "new"));
    let shadow = told(&scene).shadow.expect("there is one that does not score");
    assert!(close(told(&scene).propensity, logistic(-1.0)) && told(&scene).model == old);
    assert!(Some(shadow.0) == new && close(shadow.1, logistic(1.0)));
    edit(&mut scene, &[("config", map(&both(100.0)))]);
    assert!(close(told(&scene).propensity, logistic(1.0)) && told(&scene).model == new);
    assert!(told(&scene).shadow.is_some_and(|(model, p)| Some(model) == old && close(p, logistic(-1.0))));

    edit(&mut scene, &[("config", map(&both(30.0)))]);
    let (catalog, world) = (scene.catalog(), scene.world());
    let snapshot = Snapshot::compile(&scene.made.tenant, catalog, scene.made.revision());
    let challenged = |customer: u32| {
        let customer = proffer_engine::keys::CustomerId::new(format!("c{customer}"));
        let decision = Kernel::default().decide(&snapshot, &world, &Request { customer, ..scene.request() });
        decision.explanation.expect("it was asked for").factors[0].model == new
    };
    let share = (0..1_000).filter(|customer| challenged(*customer)).count();
    assert!((250..350).contains(&share), "{share} of 1000");
    assert!((0..50).all(|customer| challenged(customer) == challenged(customer)), "always the same ones");

    // What is not in force scores nobody, and there is nothing beside it.
    edit(&mut scene, &[("status", text("paused"))]);
    assert!(told(&scene).propensity == 0.5 && told(&scene).shadow.is_none());
    assert!(scene.decide(&scene.request()).remarks.degraded);
}
