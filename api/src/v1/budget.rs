//! `GET /offers/{id}/budget`.

use std::sync::Arc;

use axum::http::StatusCode;
use proffer_cluster::calls::AccountReport;
use proffer_engine::calendar::iso;
use proffer_engine::catalog::{CapDefinition, CapOrigin};
use proffer_engine::keys::CapKey;
use proffer_engine::model::offer::CapScope;
use proffer_engine::time::{Span, Timestamp};

use crate::asked::Asked;
use crate::problem::Problem;
use crate::routes::Answered;
use crate::v1::json;
use crate::wire::value::Number;

#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Budget<'a> {
    offer_id: &'a str,
    /// Confirmed units of the first global cap; null if there is none.
    spent: Option<Number>,
    caps: Vec<Cap<'a>>,
}

#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Cap<'a> {
    cap_id: u32,
    key: &'a str,
    count_on: &'a str,
    enforcement: &'static str,
    /// Money is in currency units, everything else in counts.
    unit: &'static str,
    limit: Number,
    spent: Number,
    reserved: Number,
    free: Number,
    pool: Number,
    in_flight: Number,
    accounts: Vec<Account>,
}

#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Account {
    ordinal: u32,
    from: Option<String>,
    until: Option<String>,
    limit: Number,
    pool: Number,
    in_flight: Number,
    shards: Vec<Shard>,
}

#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Shard {
    shard: u16,
    free: Number,
    reserved: Number,
    spent: Number,
    as_of: String,
}

/// `GET /api/v1/offers/{id}/budget`.
pub async fn get(asked: Arc<Asked>) -> Answered {
    asked.query.only(&[])?;
    let catalog = &asked.view.catalog;
    let id = asked.param("id");
    let offer = catalog.offers().by_id(id).ok_or_else(|| Problem::not_found(format!("offer {id:?}")))?;
    let report = asked.handle().budget(asked.tenant(), offer.key, asked.deadline).await?;
    let now = asked.now();
    let global = catalog.caps(offer.key).iter().filter(|cap| cap.scope == CapScope::Global);
    let caps: Vec<_> = global.map(|cap| describe(cap, &report.accounts, now)).collect();
    let spent = caps.first().map(|cap| cap.spent);
    Ok(json(StatusCode::OK, &Budget { offer_id: &offer.id, spent, caps }))
}

fn describe<'a>(cap: &'a CapDefinition, accounts: &[AccountReport], now: Timestamp) -> Cap<'a> {
    let is_money = cap.origin == CapOrigin::BudgetDaily;
    let scale = if is_money { 1e-6 } else { 1.0 };
    let amount = |units: f64| Number(if is_money { (units * scale * 1e6).round() / 1e6 } else { units });
    let of_cap = |key: CapKey| accounts.iter().filter(move |account| account.cap == key);
    let current = of_cap(cap.cap).find(|account| account.span.contains(now));
    let sum = |part: fn(&proffer_cluster::calls::ShardReport) -> u64| {
        amount(current.map_or(0, |account| account.shards.iter().map(part).sum::<u64>()) as f64)
    };
    Cap {
        cap_id: cap.cap.0,
        key: &cap.key,
        count_on: cap.count_on.as_str(),
        enforcement: cap.enforcement.as_str(),
        unit: if is_money { "money" } else { "count" },
        // As of the same moment as what follows: the catalogue of this request may be older.
        limit: amount(current.map_or(cap.limit, |account| account.limit) as f64),
        spent: sum(|shard| shard.spent),
        reserved: sum(|shard| shard.reserved),
        free: sum(|shard| shard.free),
        pool: amount(current.map_or(0, |account| account.pool) as f64),
        in_flight: amount(current.map_or(0, |account| account.in_flight) as f64),
        accounts: of_cap(cap.cap).map(|account| describe_account(account, amount)).collect(),
    }
}

fn describe_account(account: &AccountReport, amount: impl Fn(f64) -> Number) -> Account {
    let Span { from, until } = account.span;
    Account {
        ordinal: account.ordinal,
        from: (from != Span::ALWAYS.from).then(|| iso(from)),
        until: (until != Span::ALWAYS.until).then(|| iso(until)),
        limit: amount(account.limit as f64),
        pool: amount(account.pool as f64),
        in_flight: amount(account.in_flight as f64),
        shards: account
            .shards
            .iter()
            .map(|shard| Shard {
                shard: shard.shard.0,
                free: amount(shard.free as f64),
                reserved: amount(shard.reserved as f64),
                spent: amount(shard.spent as f64),
                as_of: iso(shard.as_of),
            })
            .collect(),
    }
}
