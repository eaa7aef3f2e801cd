//! Bodies of `recommend`, `decisions` and `simulate`.

use bincode::{Decode, Encode};
use proffer_engine::model::fault::Faults;
use proffer_engine::model::flow::Arbitration;
use proffer_engine::model::record::{Field, read_member, refuse_unknown};
use proffer_engine::record;
use proffer_engine::value::Value;

use crate::wire::field::{Customer, Limit, Name, NamedValues, Names};

record! {
    /// What a channel asks for. One shape for all three routes; which slots a route takes is checked by the route.
    pub struct Recommend {
        /// For whom.
        pub customer_id: Customer => "customerId",
        /// Where, by name.
        pub channel: Option<Name> => "channel" = None,
        /// Where, by id.
        pub channel_id: Option<Name> => "channelId" = None,
        /// One slot.
        pub placement: Option<PlacementSlot> => "placement" = None,
        /// Slots in answer order.
        pub placements: Vec<PlacementSlot> => "placements" = Vec::new(),
        /// Slots in answer order.
        pub activities: Vec<ActivitySlot> => "activities" = Vec::new(),
        /// Flow to decide by.
        pub decision_flow_key: Option<Name> => "decisionFlowKey" = None,
        /// Most propositions in the answer.
        pub limit: Option<Limit> => "limit" = None,
        /// `attributes.*`.
        pub attributes: NamedValues => "attributes" = NamedValues::default(),
        /// `context.*`.
        pub context: NamedValues => "context" = NamedValues::default(),
        /// United with the profile's.
        pub segments: Names => "segments" = Names::default(),
        /// Offers not to propose, by id or exact name.
        pub exclude_offers: Names => "excludeOffers" = Names::default(),
        /// Creatives not to show, by id or exact name.
        pub exclude_creatives: Names => "excludeCreatives" = Names::default(),
        /// The channel's session; becomes `context.sessionId`.
        pub session_id: Option<Name> => "sessionId" = None,
        /// Becomes `context.locale`.
        pub locale: Option<Name> => "locale" = None,
        /// Becomes `context.currency`.
        pub currency: Option<Name> => "currency" = None,
        /// One offer may fill several slots.
        pub allow_duplicates: bool => "allowDuplicates" = false,
        /// How slots share offers; null: as the flow says.
        pub arbitration: Option<Arbitration> => "arbitration" = None,
        /// An earlier `recommendationId` whose unshown units are given back.
        pub supersedes: Option<String> => "supersedes" = None,
        /// Say why.
        pub explain: bool => "explain" = false,
        /// Say more of the slots.
        pub debug: bool => "debug" = false,
        /// Keep a trace.
        pub trace: bool => "trace" = false,
    }
}

/// A slot named by a placement: `"hero"` or `{"placement": "hero", "limit": 2}`.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct PlacementSlot {
    /// Key or id.
    pub name: Name,
    /// Most propositions in it; 1 unless given.
    pub limit: Option<Limit>,
}

/// A slot named by an activity: `"hero"` or `{"activity": "hero", "limit": 2}`.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct ActivitySlot {
    /// Key or id.
    pub name: Name,
    /// Most propositions in it; 1 unless given.
    pub limit: Option<Limit>,
}

fn read_slot(value: &Value, member: &str, faults: &mut Faults) -> Option<(Name, Option<Limit>)> {
    let Some(members) = value.as_map() else {
        return Name::read(value, faults).map(|name| (name, None));
    };
    let before = faults.count();
    refuse_unknown(members, &[member, "limit"], faults);
    let name = read_member::<Name>(members, member, None, faults);
    let limit = read_member::<Option<Limit>>(members, "limit", Some(|| None), faults);
    if faults.count() == before { Some((name?, limit?)) } else { None }
}

fn write_slot(name: &Name, limit: Option<Limit>, member: &str) -> Value {
    match limit {
        None => name.write(),
        Some(limit) => Value::map([(member, name.write()), ("limit", limit.write())]),
    }
}

impl Field for PlacementSlot {
    fn read(value: &Value, faults: &mut Faults) -> Option<Self> {
        read_slot(value, "placement", faults).map(|(name, limit)| PlacementSlot { name, limit })
    }

    fn write(&self) -> Value {
        write_slot(&self.name, self.limit, "placement")
    }
}

impl Field for ActivitySlot {
    fn read(value: &Value, faults: &mut Faults) -> Option<Self> {
        read_slot(value, "activity", faults).map(|(name, limit)| ActivitySlot { name, limit })
    }

    fn write(&self) -> Value {
        write_slot(&self.name, self.limit, "activity")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::value;

    fn faults_of(text: &str) -> Vec<String> {
        let mut faults = Faults::new();
        assert_eq!(Recommend::read(&value::read(text.as_bytes()).unwrap(), &mut faults), None);
        faults.into_vec().into_iter().map(|fault| fault.pointer).collect()
    }

    #[test]
    fn every_fault_of_a_body_is_found_at_once() {
        let text = r#"{"customerId": "", "limit": 51, "placements": ["", {"placement": 3, "limit": 0, "x": 1}],
            "attributes": [], "segments": [1], "arbitration": "best", "colour": "red"}"#;
        let mut found = faults_of(text);
        found.sort();
        assert_eq!(
            found,
            [
                "/arbitration",
                "/attributes",
                "/colour",
                "/customerId",
                "/limit",
                "/placements/0",
                "/placements/1/limit",
                "/placements/1/placement",
                "/placements/1/x",
                "/segments/0",
            ]
        );
    }

    #[test]
    fn a_customer_id_has_at_most_256_bytes() {
        let body = |length: usize| format!(r#"{{"customerId": "{}"}}"#, "x".repeat(length));
        assert_eq!(faults_of(&body(257)), ["/customerId"]);
        let whole = value::read(body(256).as_bytes()).unwrap();
        assert!(Recommend::read(&whole, &mut Faults::new()).is_some());
    }

    #[test]
    fn a_body_reads_back_as_written() {
        let text = r#"{"customerId": "c", "channel": "web", "placements": ["a", {"placement": "b", "limit": 2}],
            "attributes": {"x": 1}, "segments": ["vip"], "limit": 3}"#;
        let body = Recommend::read(&value::read(text.as_bytes()).unwrap(), &mut Faults::new()).unwrap();
        assert_eq!(Recommend::read(&body.write(), &mut Faults::new()), Some(body));
    }
}
