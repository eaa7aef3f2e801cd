//! `GET /experiments/{key}/results`: what came of treated and of held-out customers.

use std::sync::Arc;

use axum::http::StatusCode;
use proffer_cluster::Outcome;
use proffer_cluster::calls::ExperimentReport;
use proffer_engine::catalog::TenantCatalog;
use proffer_engine::catalog::outcomes::IMPRESSION;
use proffer_engine::catalog::table::Resolved;
use proffer_engine::keys::{OfferKey, OutcomeKey};
use proffer_engine::learn::statistics::Interval;
use proffer_engine::learn::{ArmResult, EFFECT, ExperimentResult};
use proffer_engine::model::flow::{ControlGroupAction, Experiment, FlowVersion};
use proffer_engine::model::offer::Offer;
use proffer_engine::model::{Entity, Ref};
use proffer_engine::profile::trials::{ExperimentId, Slice};

use crate::asked::Asked;
use crate::limits::LOST_RETRY_AFTER_MS;
use crate::problem::Problem;
use crate::routes::Answered;
use crate::v1::json;
use crate::wire::value::{Number, round_significant};

/// What a reader of p has to know.
const FIXED_SAMPLE: &str = "p holds for one look at a sample whose size was fixed before; who looks again and again, and stops when it is small, \
                            is misled more often than p says. Then read sequential";
/// And of the one beside it.
const ANY_TIME: &str =
    "holds for looks at any time: for rates of 0.5 % and more with 5 % held out and more, by simulation";
/// Where control is shown nothing and everything good counts.
const SHOWN: &str = "no_offers shows nothing to control, and whoever is shown nothing cannot click, share or save, which all counts: ask for an \
                     outcome that both arms can have, such as ?outcome=conversion";
/// Where windows count that the first decision did not open.
const LATER: &str = "outcomes of offers that were first proposed later count too, and what is proposed later follows from the treatment: the \
                     difference may be biased. offerId compares only customers who began with that offer, by what came of it";

#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Results<'a> {
    experiment_key: &'a str,
    /// Flows that run it, or are published with it turned off.
    flows: Vec<Flow<'a>>,
    /// The offer that customers were enrolled with; null: any.
    offer_id: Option<&'a str>,
    /// The outcome that counts; null: any positive one.
    outcome: Option<&'a str>,
    /// Whether every shard is in it.
    complete: bool,
    unreachable_shards: Vec<u16>,
    arms: Arms,
    lift: Lift,
    test: Option<Test>,
    sequential: Option<Sequential>,
    incremental_revenue_per_customer: Option<Difference>,
    /// What stands in the way of reading it plainly.
    notes: Vec<String>,
}

#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Flow<'a> {
    decision_flow_key: &'a str,
    decision_flow_version: u32,
    status: &'static str,
    enabled: bool,
    holdout_percent: Number,
    control_group_action: &'static str,
    window_days: u32,
}

#[derive(serde::Serialize)]
struct Arms {
    treatment: Arm,
    control: Arm,
}

#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Arm {
    customers: u64,
    converted: u64,
    rate: Option<Number>,
    /// Wilson, 95 %.
    rate_interval: Option<Ends>,
    revenue: Number,
    revenue_per_customer: Option<Number>,
    /// Found in the other arm later; counted here.
    moved: u64,
}

#[derive(serde::Serialize)]
struct Ends {
    lower: Number,
    upper: Number,
}

#[derive(serde::Serialize)]
struct Lift {
    absolute: Option<Number>,
    relative: Option<Number>,
}

#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Test {
    method: &'static str,
    z: Number,
    p: Number,
    sequential_safe: bool,
    note: &'static str,
}

#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Sequential {
    method: &'static str,
    p: Number,
    /// Of the absolute lift, 95 %.
    lift_interval: Ends,
    /// Standard deviation of the effects it looks out for.
    effect: Number,
    sequential_safe: bool,
    note: &'static str,
}

#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Difference {
    value: Number,
    /// Welch, 95 %; null where nothing varies or an arm has fewer than two customers.
    interval: Option<Ends>,
    degrees_of_freedom: Option<Number>,
}

/// `GET /api/v1/experiments/{key}/results?offerId&outcome`.
pub async fn results(asked: Arc<Asked>) -> Answered {
    asked.query.only(&["offerId", "outcome"])?;
    let catalog = &*asked.view.catalog;
    let key = asked.param("key");
    let outcome = asked.query.get("outcome");
    let offer = asked.query.get("offerId").map(|name| offer_of(catalog, name)).transpose()?;
    let counted = outcome.map(|word| outcome_of(catalog, word)).transpose()?;
    let slice = Slice { offer: offer.map(|offer| offer.key), outcome: counted };
    let (is_known, flows) = flows_of(catalog, key);
    let id = ExperimentId::of(key);
    let report = asked.handle().experiment(asked.tenant(), id, slice, asked.deadline).await?;
    // Nobody may have begun with the offer in an experiment that there was.
    let whole = match slice.offer {
        Some(_) if !is_known => {
            &asked.handle().experiment(asked.tenant(), id, Slice::default(), asked.deadline).await?
        }
        Some(_) | None => &report,
    };
    if let Some(problem) = missing(is_known, key, whole) {
        return Err(problem.into());
    }
    Ok(json(StatusCode::OK, &answer(key, (offer.map(|offer| offer.id.as_str()), outcome), flows, &report)))
}

/// Why there is no result of an experiment that no flow was published with, and in which nobody is found.
fn missing(is_known: bool, key: &str, report: &ExperimentReport) -> Option<Problem> {
    if is_known || !report.tally.is_empty() {
        return None;
    }
    if report.unreachable.is_empty() {
        return Some(Problem::not_found(format!("experiment {key:?}: no flow was published with it")));
    }
    // A flow that is gone may have run it, and enrolled somebody where nobody could be asked.
    Some(Problem::Unavailable {
        message: "no flow has this experiment, and not every shard can say whether one had".to_owned(),
        retry_after_ms: LOST_RETRY_AFTER_MS,
        outcome: Outcome::NotApplied,
    })
}

fn offer_of<'a>(catalog: &'a TenantCatalog, name: &str) -> Result<&'a Entity<OfferKey, Offer>, Problem> {
    let found = match catalog.offers().resolve(&Ref(name.to_owned())) {
        Resolved::Found(offer) => catalog.offers().get(offer).map(Arc::as_ref),
        Resolved::Unknown | Resolved::Ambiguous => None,
    };
    found.ok_or_else(|| Problem::invalid("/query/offerId", format!("{name:?} does not exist")))
}

fn outcome_of(catalog: &TenantCatalog, word: &str) -> Result<OutcomeKey, Problem> {
    match catalog.outcomes().get(word).map(|outcome| outcome.key) {
        Some(IMPRESSION) => {
            Err(Problem::invalid("/query/outcome", "impressions do not count: only treated customers have them"))
        }
        Some(outcome) => Ok(outcome),
        None => Err(Problem::invalid("/query/outcome", format!("outcome {word:?} does not exist"))),
    }
}

/// Whether any version of any flow has, or had, the experiment; and the flows whose version in force has.
fn flows_of<'a>(catalog: &'a TenantCatalog, key: &str) -> (bool, Vec<Flow<'a>>) {
    let (mut is_known, mut found) = (false, Vec::new());
    for row in catalog.flows().iter() {
        let of = |version: &'a FlowVersion| {
            let experiment = version.config.flow_config.experiment.as_ref()?;
            (experiment.key.as_deref().unwrap_or(&row.body.key) == key).then_some(experiment)
        };
        let versions = catalog.flow_versions(row.key);
        is_known |= versions.iter().any(|version| of(version).is_some());
        if let Some((version, experiment)) = versions.last().and_then(|version| Some((version, of(version)?))) {
            let Experiment { enabled, holdout_percent, control_group_action, window_days, .. } = experiment;
            found.push(Flow {
                decision_flow_key: &row.body.key,
                decision_flow_version: version.number,
                status: row.body.status.as_str(),
                enabled: *enabled,
                holdout_percent: number(*holdout_percent),
                control_group_action: control_group_action.as_str(),
                window_days: *window_days,
            });
        }
    }
    (is_known, found)
}

fn answer<'a>(
    key: &'a str,
    (offer_id, outcome): (Option<&'a str>, Option<&'a str>),
    flows: Vec<Flow<'a>>,
    report: &ExperimentReport,
) -> Results<'a> {
    let found = ExperimentResult::of(&report.tally);
    let test = found.test.map(|test| Test {
        method: "pooled two-proportion z, two-sided",
        z: number(test.z),
        p: number(test.p),
        sequential_safe: false,
        note: FIXED_SAMPLE,
    });
    let sequential = found.always_valid.map(|always| Sequential {
        method: "mixture likelihood ratio",
        p: number(always.p),
        lift_interval: always.interval.into(),
        effect: number(EFFECT),
        sequential_safe: true,
        note: ANY_TIME,
    });
    let incremental = found.incremental.map(|difference| Difference {
        value: number(difference.value),
        interval: difference.interval.map(|(interval, _)| interval.into()),
        degrees_of_freedom: difference.interval.map(|(_, degrees)| number(degrees)),
    });
    Results {
        experiment_key: key,
        notes: notes(&flows, &found, report, (offer_id.is_some(), outcome.is_some())),
        flows,
        offer_id,
        outcome,
        complete: report.unreachable.is_empty(),
        unreachable_shards: report.unreachable.iter().map(|shard| shard.0).collect(),
        arms: Arms { treatment: (&found.treatment).into(), control: (&found.control).into() },
        lift: Lift { absolute: found.absolute_lift.map(number), relative: found.relative_lift.map(number) },
        test,
        sequential,
        incremental_revenue_per_customer: incremental,
    }
}

fn notes(
    flows: &[Flow<'_>],
    found: &ExperimentResult,
    report: &ExperimentReport,
    (by_offer, by_outcome): (bool, bool),
) -> Vec<String> {
    let mut notes = Vec::new();
    let runs = |action: ControlGroupAction| flows.iter().any(|flow| flow.control_group_action == action.as_str());
    if !report.unreachable.is_empty() {
        notes.push(format!(
            "{} shards cannot be reached: their customers are missing in both arms",
            report.unreachable.len()
        ));
    }
    for (arm, of) in [("treatment", &found.treatment), ("control", &found.control)] {
        if of.tally.customers == 0 {
            notes.push(format!("nobody is enrolled in {arm}: there is nothing to compare"));
        }
    }
    if found.treatment.tally.moved + found.control.tally.moved > 0 {
        notes.push(
            "some customers were found in the other arm later: they count in the arm that they began in".to_owned(),
        );
    }
    let are_compared = found.treatment.tally.customers > 0 && found.control.tally.customers > 0;
    if are_compared && !by_outcome && runs(ControlGroupAction::NoOffers) {
        notes.push(SHOWN.to_owned());
    }
    if are_compared && !by_offer {
        notes.push(LATER.to_owned());
    }
    if by_offer && runs(ControlGroupAction::PriorityOnly) {
        notes.push(
            "priority_only proposes other offers to control: who began with this one are others in each arm".to_owned(),
        );
    }
    let differ = |of: fn(&Flow<'_>) -> f64| flows.windows(2).any(|pair| of(&pair[0]) != of(&pair[1]));
    if differ(|flow| flow.holdout_percent.0) || differ(|flow| f64::from(flow.window_days)) {
        notes.push("flows that share this experiment differ in holdoutPercent or windowDays".to_owned());
    }
    notes
}

impl From<&ArmResult> for Arm {
    fn from(of: &ArmResult) -> Self {
        Arm {
            customers: of.tally.customers,
            converted: of.tally.converted,
            rate: of.rate.map(number),
            rate_interval: of.interval.map(Ends::from),
            revenue: number(of.tally.revenue as f64 / 1e6),
            revenue_per_customer: of.revenue.map(number),
            moved: of.tally.moved,
        }
    }
}

impl From<Interval> for Ends {
    fn from(Interval { lower, upper }: Interval) -> Self {
        Ends { lower: number(lower), upper: number(upper) }
    }
}

fn number(number: f64) -> Number {
    Number(round_significant(number))
}

#[cfg(test)]
mod tests {
    use proffer_engine::keys::ShardId;
    use proffer_engine::learn::{ArmTally, ExperimentTally};
    use serde_json::{Value, json};

    use super::*;

    fn report(treated: u64, held: u64, unreachable: Vec<ShardId>) -> ExperimentReport {
        let arm = |customers| ArmTally { customers, converted: customers / 10, ..ArmTally::default() };
        ExperimentReport { tally: ExperimentTally { treatment: arm(treated), control: arm(held) }, unreachable }
    }

    fn said(report: &ExperimentReport) -> Value {
        serde_json::to_value(answer("e", (None, None), Vec::new(), report)).unwrap()
    }

    #[test]
    fn shards_that_are_missing_are_named_and_noted() {
        let whole = said(&report(900, 100, Vec::new()));
        assert_eq!(
            (&whole["complete"], &whole["unreachableShards"], &whole["notes"]),
            (&json!(true), &json!([]), &json!([LATER]))
        );
        let part = said(&report(900, 100, vec![ShardId(3), ShardId(7)]));
        assert_eq!((&part["complete"], &part["unreachableShards"]), (&json!(false), &json!([3, 7])));
        assert!(part["notes"][0].as_str().unwrap().starts_with("2 shards cannot be reached"), "{part}");
    }

    #[test]
    fn what_makes_the_arms_unlike_is_noted_where_they_are_compared() {
        let flow = |action: ControlGroupAction| Flow {
            decision_flow_key: "f",
            decision_flow_version: 1,
            status: "active",
            enabled: true,
            holdout_percent: number(10.0),
            control_group_action: action.as_str(),
            window_days: 7,
        };
        let noted = |action, asked, held| answer("e", asked, vec![flow(action)], &report(900, held, Vec::new())).notes;
        let (none, by_priority) = (ControlGroupAction::NoOffers, ControlGroupAction::PriorityOnly);
        assert_eq!(noted(none, (None, None), 100), [SHOWN, LATER]);
        assert_eq!(noted(none, (None, Some("conversion")), 100), [LATER]);
        assert_eq!(noted(none, (Some("A"), None), 100), [SHOWN]);
        assert_eq!(noted(none, (Some("A"), Some("conversion")), 100), [""; 0]);
        assert_eq!(noted(by_priority, (None, None), 100), [LATER], "both are shown something");
        assert_eq!(noted(none, (None, None), 0).len(), 1, "nothing to compare");
    }

    #[test]
    fn an_unknown_experiment_is_not_found_only_if_every_shard_says_so() {
        let nobody = report(0, 0, Vec::new());
        assert!(matches!(missing(false, "e", &nobody), Some(Problem::NotFound(_))));
        assert!(missing(true, "e", &nobody).is_none(), "a flow has it");
        assert!(missing(false, "e", &report(1, 0, Vec::new())).is_none(), "a flow had it");
        let unsure = report(0, 0, vec![ShardId(1)]);
        assert!(matches!(missing(false, "e", &unsure), Some(Problem::Unavailable { .. })));
    }

    #[test]
    fn money_is_in_units_and_an_empty_arm_has_no_rate() {
        let mut one_sided = report(4, 0, Vec::new());
        (one_sided.tally.treatment.revenue, one_sided.tally.treatment.squares) = (10_000_000, 50_000_000_000_000);
        let told = said(&one_sided);
        let arms = &told["arms"];
        assert_eq!(
            (&arms["treatment"]["revenue"], &arms["treatment"]["revenuePerCustomer"]),
            (&json!(10), &json!(2.5))
        );
        assert_eq!((&arms["control"]["rate"], &arms["control"]["rateInterval"]), (&Value::Null, &Value::Null));
        assert_eq!(told["notes"], json!(["nobody is enrolled in control: there is nothing to compare"]));
    }
}
