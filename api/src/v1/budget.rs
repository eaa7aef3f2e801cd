//! `GET /offers/{id}/budget`.

use std::sync::Arc;

use axum::http::StatusCode;
use proffer_cluster::calls::{AccountReport, ShardReport};
use proffer_engine::calendar::iso;
use proffer_engine::catalog::{CapDefinition, CapOrigin};
use proffer_engine::model::offer::CapScope;
use proffer_engine::time::Span;

use crate::asked::Asked;
use crate::problem::Problem;
use crate::routes::Answered;
use crate::v1::json;
use crate::wire::value::Number;

const LINEARIZABLE: &str = "linearizable";

#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Budget<'a> {
    offer_id: &'a str,
    /// Of the first global cap, what is in force now; nothing if there is none.
    #[serde(flatten)]
    first: Option<Account<'a>>,
    /// Every global cap in every period that is open.
    accounts: Vec<Account<'a>>,
}

/// One cap in one period: `pool + inFlight + free + reserved + spent = limit`.
#[derive(Clone, serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Account<'a> {
    cap_id: u32,
    key: &'a str,
    count_on: &'a str,
    enforcement: &'static str,
    /// Money is in currency units, everything else in counts.
    unit: &'static str,
    ordinal: u32,
    from: Option<String>,
    until: Option<String>,
    limit: Number,
    pool: Number,
    in_flight: Number,
    free: Number,
    reserved: Number,
    spent: Number,
    shards: Vec<Shard>,
}

#[derive(Clone, serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Shard {
    shard: u16,
    free: Number,
    reserved: Number,
    spent: Number,
    as_of: String,
}

/// `GET /api/v1/offers/{id}/budget?consistency=`.
pub async fn get(asked: Arc<Asked>) -> Answered {
    asked.query.only(&["consistency"])?;
    // Every shard is asked where it is led: what a read adds up lies between what was spent before it began and when it is answered, and a count that
    // only grows comes by each number on its way. So its `spent` is linearizable; money comes in larger pieces, and a rolling window forgets.
    let consistency = asked.query.get("consistency");
    if consistency.is_some_and(|consistency| consistency != LINEARIZABLE) {
        return Err(Problem::invalid("/query/consistency", format!("must be {LINEARIZABLE}, or left out")).into());
    }
    let catalog = &asked.view.catalog;
    let id = asked.param("id");
    let offer = catalog.offers().by_id(id).ok_or_else(|| Problem::not_found(format!("offer {id:?}")))?;
    let report = asked.handle().budget(asked.tenant(), offer.key, consistency.is_some(), asked.deadline).await?;
    let now = asked.now();
    let global = catalog.caps(offer.key).iter().filter(|cap| cap.scope == CapScope::Global);
    let mut first = None;
    let mut accounts = Vec::new();
    for (number, cap) in global.enumerate() {
        for account in report.accounts.iter().filter(|account| account.cap == cap.cap) {
            let described = describe(cap, account);
            if number == 0 && (first.is_none() || account.span.contains(now)) {
                first = Some(described.clone());
            }
            accounts.push(described);
        }
    }
    Ok(json(StatusCode::OK, &Budget { offer_id: &offer.id, first, accounts }))
}

fn describe<'a>(cap: &'a CapDefinition, account: &AccountReport) -> Account<'a> {
    let is_money = cap.origin == CapOrigin::BudgetDaily;
    let amount = |units: f64| Number(if is_money { units.round() / 1e6 } else { units });
    let sum = |part: fn(&ShardReport) -> u64| amount(account.shards.iter().map(part).sum::<u64>() as f64);
    let Span { from, until } = account.span;
    let shards = account.shards.iter().map(|shard| Shard {
        shard: shard.shard.0,
        free: amount(shard.free as f64),
        reserved: amount(shard.reserved as f64),
        spent: amount(shard.spent as f64),
        as_of: iso(shard.as_of),
    });
    Account {
        cap_id: cap.cap.0,
        key: &cap.key,
        count_on: cap.count_on.as_str(),
        enforcement: cap.enforcement.as_str(),
        unit: if is_money { "money" } else { "count" },
        ordinal: account.ordinal,
        from: (from != Span::ALWAYS.from).then(|| iso(from)),
        until: (until != Span::ALWAYS.until).then(|| iso(until)),
        // As of the same moment as what follows: the catalogue of this request may be older.
        limit: amount(account.limit as f64),
        pool: amount(account.pool as f64),
        in_flight: amount(account.in_flight as f64),
        free: sum(|shard| shard.free),
        reserved: sum(|shard| shard.reserved),
        spent: sum(|shard| shard.spent),
        shards: shards.collect(),
    }
}
