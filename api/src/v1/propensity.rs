//! `GET /offers/{id}/propensity`: P of an offer as decisions on this node read it now, and what it is made of.

use std::sync::Arc;

use axum::http::StatusCode;
use proffer_engine::learn::Tallies;
use proffer_engine::profile::evidence::Tally;

use crate::asked::Asked;
use crate::problem::Problem;
use crate::routes::Answered;
use crate::v1::json;
use crate::wire::answer::word_of;
use crate::wire::value::{Number, round_significant};

#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Estimate<'a> {
    offer_id: &'a str,
    propensity: Number,
    propensity_source: &'static str,
    /// The offer's own.
    offer: Evidence,
    /// Its category's, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    category: Option<Evidence>,
    /// All offers'.
    global: Evidence,
}

/// Propositions that were shown, and those of them that came to something.
#[derive(serde::Serialize)]
struct Evidence {
    shown: u64,
    positive: u64,
}

impl From<Tally> for Evidence {
    fn from(Tally { shown, positive }: Tally) -> Self {
        Evidence { shown, positive }
    }
}

/// `GET /api/v1/offers/{id}/propensity`.
pub async fn get(asked: Arc<Asked>) -> Answered {
    asked.query.only(&[])?;
    let catalog = &asked.view.catalog;
    let id = asked.param("id");
    let offer = catalog.offers().by_id(id).ok_or_else(|| Problem::not_found(format!("offer {id:?}")))?;
    let category = offer.body.category_id.as_ref().and_then(|category| catalog.categories().key_of(&category.0));
    let learned = asked.handle().learned(asked.tenant());
    let found = learned.propensity(offer.key, category);
    let Tallies { all, offers, categories } = learned.tallies();
    let own =
        offers.binary_search_by_key(&offer.key, |(key, _)| *key).map_or(Tally::default(), |place| offers[place].1);
    let of_category = category.map(|category| {
        let place = categories.binary_search_by_key(&category, |(key, _)| *key);
        place.map_or(Tally::default(), |place| categories[place].1)
    });
    let answer = Estimate {
        offer_id: &offer.id,
        propensity: Number(round_significant(found.value)),
        propensity_source: word_of(found.source),
        offer: own.into(),
        category: of_category.map(Evidence::from),
        global: (*all).into(),
    };
    Ok(json(StatusCode::OK, &answer))
}
