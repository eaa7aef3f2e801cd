//! Bodies of `POST /adobe/decisions`: the shape of Adobe's decisioning API, for clients that were written for it.

use std::collections::BTreeMap;

use proffer_engine::choice;
use proffer_engine::decide::request::Duplicates;
use proffer_engine::model::fault::Faults;
use proffer_engine::model::record::Field;
use proffer_engine::record;
use proffer_engine::value::Value;
use serde::Serialize;

use crate::limits::{ADOBE_ITEMS_MAX, PROPOSITION_REQUESTS_MAX};
use crate::wire::answer::Content;
use crate::wire::field::{Customer, Name, NamedValues};
use crate::wire::value::Number;

record! {
    /// What a client asks for.
    pub struct AdobeRequest {
        /// Slots in answer order: 1 to 30.
        pub proposition_requests: Vec<PropositionRequest> => "xdm:propositionRequests",
        /// For whom: exactly one.
        pub profiles: Vec<AdobeProfile> => "xdm:profiles",
        /// Where an offer may stand twice.
        pub allow_duplicates: AllowDuplicates => "xdm:allowDuplicatePropositions" = AllowDuplicates::default(),
        /// What is said of what is proposed.
        pub response_format: ResponseFormat => "xdm:responseFormat" = ResponseFormat::default(),
        /// Take and record nothing.
        pub dry_run: bool => "xdm:dryRun" = false,
        /// Which view of a profile to merge. There is one here: taken, and without effect.
        pub merge_policy: Option<Value> => "xdm:mergePolicy" = None,
    }
}

record! {
    /// One slot.
    pub struct PropositionRequest {
        /// The activity, by id or key.
        pub activity_id: Name => "xdm:activityId",
        /// The activity's placement, by id or key.
        pub placement_id: Name => "xdm:placementId",
        /// Most propositions in it.
        pub item_count: ItemCount => "xdm:itemCount" = ItemCount(1),
    }
}

record! {
    /// One customer, and what is known of them now.
    pub struct AdobeProfile {
        /// Their identities by namespace.
        pub identity_map: BTreeMap<String, Vec<Identity>> => "xdm:identityMap",
        /// Names this request: a repetition with the same body is answered the same and takes nothing again.
        pub decision_request_id: Option<Name> => "xdm:decisionRequestId" = None,
        /// `context.*`, in parts.
        pub context_data: Vec<ContextData> => "xdm:contextData" = Vec::new(),
    }
}

record! {
    /// A customer's id in a namespace.
    pub struct Identity {
        /// The id.
        pub id: Customer => "xdm:id",
        /// The one to use of several.
        pub primary: bool => "xdm:primary" = false,
    }
}

record! {
    /// A part of the context.
    pub struct ContextData {
        /// What it is, for the client's own use.
        pub kind: Option<Name> => "@type" = None,
        /// Named values; `xdm:` before a name is left out.
        pub data: NamedValues => "xdm:data",
    }
}

record! {
    /// Where an offer may stand twice.
    #[derive(Default)]
    pub struct AllowDuplicates {
        /// In slots of different activities.
        pub across_activities: bool => "xdm:acrossActivities" = false,
        /// In slots of different placements.
        pub across_placements: bool => "xdm:acrossPlacements" = false,
    }
}

record! {
    /// What is said of what is proposed.
    pub struct ResponseFormat {
        /// With the content.
        pub include_content: bool => "xdm:includeContent" = true,
        /// And what more of which thing.
        pub include_metadata: Metadata => "xdm:includeMetadata" = Metadata::default(),
    }
}

record! {
    /// What more is said of which thing.
    #[derive(Default)]
    pub struct Metadata {
        /// Of activities.
        pub activity: Vec<ActivityDetail> => "xdm:activity" = Vec::new(),
        /// Of offers.
        pub option: Vec<OptionDetail> => "xdm:option" = Vec::new(),
        /// Of placements.
        pub placement: Vec<PlacementDetail> => "xdm:placement" = Vec::new(),
    }
}

choice! {
    /// What may be said of an activity.
    pub enum ActivityDetail {
        /// Its name.
        Name => "name",
    }
}

choice! {
    /// What may be said of an offer.
    pub enum OptionDetail {
        /// Its name.
        Name => "name",
        /// Its custom fields.
        Characteristics => "characteristics",
    }
}

choice! {
    /// What may be said of a placement.
    pub enum PlacementDetail {
        /// Its name.
        Name => "name",
        /// The name of its channel.
        Channel => "channel",
    }
}

/// An `xdm:itemCount`: 1 to 30.
#[derive(Clone, Copy, Debug, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct ItemCount(pub u32);

impl Field for ItemCount {
    fn read(value: &Value, faults: &mut Faults) -> Option<Self> {
        let count = value.as_number().filter(|n| n.fract() == 0.0 && (1.0..=f64::from(ADOBE_ITEMS_MAX)).contains(n));
        if count.is_none() {
            faults.add(format!("must be a whole number from 1 to {ADOBE_ITEMS_MAX}"));
        }
        count.map(|n| ItemCount(n as u32))
    }

    fn write(&self) -> Value {
        Value::Number(f64::from(self.0))
    }
}

impl Default for ResponseFormat {
    fn default() -> Self {
        ResponseFormat { include_content: true, include_metadata: Metadata::default() }
    }
}

impl AllowDuplicates {
    /// The same in our words. An activity has one placement: slots of different placements are of different activities as well.
    pub fn duplicates(&self) -> Duplicates {
        match (self.across_activities, self.across_placements) {
            (false, _) => Duplicates::Never,
            (true, false) => Duplicates::WithinPlacement,
            (true, true) => Duplicates::Anywhere,
        }
    }
}

impl AdobeRequest {
    /// Notes what a whole request must have beyond what its parts must.
    pub fn check(&self, faults: &mut Faults) {
        if !(1..=PROPOSITION_REQUESTS_MAX).contains(&self.proposition_requests.len()) {
            let message = format!("must have 1 to {PROPOSITION_REQUESTS_MAX} items");
            faults.add_at("xdm:propositionRequests", message);
        }
        match &self.profiles[..] {
            [profile] => faults.within("xdm:profiles", |faults| faults.within("0", |faults| profile.check(faults))),
            _ => faults.add_at("xdm:profiles", "must have exactly one item"),
        }
    }
}

impl AdobeProfile {
    /// The customer: the only primary identity, else the first of the first namespace in the order of names.
    pub fn customer(&self) -> Option<&Customer> {
        let all = || self.identity_map.values().flatten();
        all().find(|identity| identity.primary).or_else(|| all().next()).map(|identity| &identity.id)
    }

    /// `context.*`.
    pub fn context(&self) -> BTreeMap<&str, &Value> {
        let all = self.context_data.iter().flat_map(|part| &part.data.0);
        all.map(|(name, value)| (name.strip_prefix("xdm:").unwrap_or(name), value)).collect()
    }

    fn check(&self, faults: &mut Faults) {
        let primary = self.identity_map.values().flatten().filter(|identity| identity.primary).count();
        if self.customer().is_none() {
            faults.add_at("xdm:identityMap", "must name an identity");
        } else if primary > 1 {
            faults.add_at("xdm:identityMap", "must have at most one primary identity");
        }
        if self.context().len() < self.context_data.iter().map(|part| part.data.0.len()).sum() {
            faults.add_at("xdm:contextData", "names a value twice");
        }
    }
}

/// A whole answer.
#[derive(Debug, Serialize)]
pub struct AdobeAnswer<'a> {
    /// What we call `recommendationId`; null in a dry run.
    #[serde(rename = "xdm:propositionId")]
    pub proposition_id: Option<&'a str>,
    /// One per request, in its order.
    #[serde(rename = "xdm:propositions")]
    pub propositions: Vec<AdobeProposition<'a>>,
    /// When it was decided, in milliseconds since 1970.
    #[serde(rename = "ode:createDate")]
    pub created: i64,
    /// Of a repeated answer: offers that have been excluded since are left out.
    #[serde(rename = "proffer:excluded", skip_serializing_if = "std::ops::Not::not")]
    pub excluded: bool,
}

/// What fills one slot: options, or the fallback.
#[derive(Debug, Serialize)]
pub struct AdobeProposition<'a> {
    /// Which activity.
    #[serde(rename = "xdm:activity")]
    pub activity: Thing<'a>,
    /// Where.
    #[serde(rename = "xdm:placement")]
    pub placement: Thing<'a>,
    /// Best first; empty if even the fallback may not be shown.
    #[serde(rename = "xdm:options", skip_serializing_if = "Option::is_none")]
    pub options: Option<Vec<Chosen<'a>>>,
    /// Stands in for what nobody qualifies for.
    #[serde(rename = "xdm:fallback", skip_serializing_if = "Option::is_none")]
    pub fallback: Option<Chosen<'a>>,
}

/// A thing of the catalogue, and what was asked for of it.
#[derive(Debug, Serialize)]
pub struct Thing<'a> {
    /// Its id.
    #[serde(rename = "xdm:id")]
    pub id: &'a str,
    /// Its revision.
    #[serde(rename = "repo:etag")]
    pub etag: u64,
    /// Its name.
    #[serde(rename = "xdm:name", skip_serializing_if = "Option::is_none")]
    pub name: Option<&'a str>,
    /// A placement's channel.
    #[serde(rename = "xdm:channel", skip_serializing_if = "Option::is_none")]
    pub channel: Option<&'a str>,
}

/// An offer that was chosen.
#[derive(Debug, Serialize)]
pub struct Chosen<'a> {
    /// Which.
    #[serde(flatten)]
    pub offer: Thing<'a>,
    /// Content type of its creative.
    #[serde(rename = "@type", skip_serializing_if = "Option::is_none")]
    pub content_type: Option<&'a str>,
    /// Its content.
    #[serde(rename = "xdm:content", skip_serializing_if = "Option::is_none")]
    pub content: Option<Content<'a>>,
    /// What `respond` calls it by.
    #[serde(rename = "proffer:rank")]
    pub rank: u16,
    /// What it scored; not said of a fallback.
    #[serde(rename = "xdm:score", skip_serializing_if = "Option::is_none")]
    pub score: Option<Number>,
    /// Its custom fields.
    #[serde(rename = "xdm:characteristics", skip_serializing_if = "Option::is_none")]
    pub characteristics: Option<BTreeMap<&'a str, crate::wire::value::Json<'a>>>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::value;

    fn faults_of(text: &str) -> Vec<String> {
        let mut faults = Faults::new();
        if let Some(read) = AdobeRequest::read(&value::read(text.as_bytes()).unwrap(), &mut faults) {
            read.check(&mut faults);
        }
        faults.into_vec().into_iter().map(|fault| fault.pointer).collect()
    }

    fn profile(text: &str) -> AdobeProfile {
        AdobeProfile::read(&value::read(text.as_bytes()).unwrap(), &mut Faults::new()).unwrap()
    }

    #[test]
    fn every_fault_of_a_body_is_found_at_once() {
        let text = r#"{"xdm:propositionRequests": [{"xdm:activityId": "a", "xdm:itemCount": 31}],
            "xdm:profiles": [{"xdm:identityMap": {"Email": [{"xdm:id": ""}]}, "xdm:contextData": [{"xdm:data": 1}]}],
            "xdm:responseFormat": {"xdm:includeMetadata": {"xdm:option": ["colour"]}}, "xdm:colour": 1}"#;
        let mut found = faults_of(text);
        found.sort();
        assert_eq!(
            found,
            [
                "/xdm:colour",
                "/xdm:profiles/0/xdm:contextData/0/xdm:data",
                "/xdm:profiles/0/xdm:identityMap/Email/0/xdm:id",
                "/xdm:propositionRequests/0/xdm:itemCount",
                "/xdm:propositionRequests/0/xdm:placementId",
                "/xdm:responseFormat/xdm:includeMetadata/xdm:option/0",
            ]
        );
    }

    #[test]
    fn a_request_has_slots_one_customer_and_a_context_without_doubles() {
        assert_eq!(
            faults_of(r#"{"xdm:propositionRequests": [], "xdm:profiles": []}"#),
            ["/xdm:propositionRequests", "/xdm:profiles"]
        );
        let slot = r#"{"xdm:activityId": "a", "xdm:placementId": "p"}"#;
        let slots = vec![slot; 31].join(",");
        let one = r#"{"xdm:identityMap": {}, "xdm:contextData": [{"xdm:data": {"a": 1}}, {"xdm:data": {"xdm:a": 2}}]}"#;
        assert_eq!(
            faults_of(&format!(r#"{{"xdm:propositionRequests": [{slots}], "xdm:profiles": [{one}]}}"#)),
            ["/xdm:propositionRequests", "/xdm:profiles/0/xdm:identityMap", "/xdm:profiles/0/xdm:contextData"]
        );
        let two = r#"{"xdm:identityMap": {"A": [{"xdm:id": "1", "xdm:primary": true}, {"xdm:id": "2", "xdm:primary": true}]}}"#;
        assert_eq!(
            faults_of(&format!(r#"{{"xdm:propositionRequests": [{slot}], "xdm:profiles": [{two}]}}"#)),
            ["/xdm:profiles/0/xdm:identityMap"]
        );
    }

    #[test]
    fn the_customer_is_the_primary_identity_else_the_first() {
        let both = |primary: &str| {
            let text = format!(
                r#"{{"xdm:identityMap": {{"Mail": [{{"xdm:id": "m"{primary}}}], "Crm": [{{"xdm:id": "c"}}, {{"xdm:id": "d"}}]}}}}"#
            );
            profile(&text).customer().unwrap().0.to_string()
        };
        assert_eq!((both(""), both(r#", "xdm:primary": true"#)), ("c".to_owned(), "m".to_owned()));
    }

    #[test]
    fn flags_say_where_an_offer_may_stand_twice() {
        let flags = |across_activities, across_placements| {
            AllowDuplicates { across_activities, across_placements }.duplicates()
        };
        assert_eq!(flags(false, false), Duplicates::Never);
        assert_eq!(flags(false, true), Duplicates::Never);
        assert_eq!(flags(true, false), Duplicates::WithinPlacement);
        assert_eq!(flags(true, true), Duplicates::Anywhere);
    }
}
