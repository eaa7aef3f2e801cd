//! A small world to work an answer out for by hand.

use proffer_engine::catalog::{EntityKind, Op};
use proffer_engine::decide::decision::RemovalReason;
use proffer_engine::decide::request::{Duplicates, SlotRequest, SlotTarget};
use proffer_engine::decide::view::Instant;
use proffer_engine::keys::{ChannelKey, CreativeKey, CustomerId, OfferKey, PlacementKey};
use proffer_engine::learn::{Learned, Tallies};
use proffer_engine::profile::state::{Exposure, Profile};
use proffer_engine::time::{Calendar, HOUR_MS, Timestamp};
use proffer_engine::value::Value;

use super::catalogue::{Made, START};
use super::world::{Escrow, World};
use super::*;

pub type Members<'m> = &'m [(&'m str, Value)];

/// A catalogue under construction and one customer.
pub struct Scene {
    pub made: Made,
    pub profile: Profile,
    pub symbols: Symbols,
    pub now: Timestamp,
    pub tallies: Tallies,
}

impl Scene {
    /// One channel `web` with placements `top` and `side`.
    pub fn new() -> Self {
        let mut made = Made::empty(1);
        made.create(EntityKind::Channel, "web", &[("name", text("web"))]);
        for placement in ["top", "side"] {
            made.create(EntityKind::Placement, placement, &[("name", text(placement)), ("channelId", text("web"))]);
        }
        Scene {
            made,
            profile: Profile::default(),
            symbols: Symbols::default(),
            now: START,
            tallies: Tallies::default(),
        }
    }

    pub fn create(&mut self, kind: EntityKind, id: &str, members: Members<'_>) {
        self.made.create(kind, id, members);
        assert!(self.made.refused.is_empty(), "{:?}", self.made.refused);
    }

    /// An active offer named like its id.
    pub fn offer(&mut self, id: &str, members: Members<'_>) -> &mut Self {
        let mut all = vec![("name", text(id)), ("status", text("active"))];
        all.extend_from_slice(members);
        self.create(EntityKind::Offer, id, &all);
        self
    }

    /// An active creative of an offer on `web`.
    pub fn creative(&mut self, id: &str, offer: &str, placement: Option<&str>) -> &mut Self {
        let mut all =
            vec![("name", text(id)), ("offerId", text(offer)), ("channelId", text("web")), ("status", text("active"))];
        all.extend(placement.map(|placement| ("placementId", text(placement))));
        self.create(EntityKind::Creative, id, &all);
        self
    }

    pub fn rule(&mut self, id: &str, scope: (&str, &str), members: Members<'_>) -> &mut Self {
        let mut all = vec![("name", text(id)), ("scope", text(scope.0))];
        if !scope.1.is_empty() {
            all.push(("scopeId", text(scope.1)));
        }
        all.extend_from_slice(members);
        self.create(EntityKind::Rule, id, &all);
        self
    }

    pub fn policy(&mut self, id: &str, kind: &str, config: Members<'_>) -> &mut Self {
        let config = Value::map(config.to_vec());
        self.create(EntityKind::Policy, id, &[("name", text(id)), ("ruleType", text(kind)), ("config", config)]);
        self
    }

    /// Publishes a flow `main` with these nodes beside the inventory.
    pub fn flow(&mut self, settings: Value, nodes: &[(&str, f64, Value)]) -> &mut Self {
        let inventory = ("inventory", 1.0, Value::map::<&str>([]));
        let nodes = std::iter::once(&inventory).chain(nodes).enumerate().map(|(position, (kind, phase, config))| {
            Value::map([
                ("id", text(&format!("n{position}"))),
                ("type", text(kind)),
                ("phase", Value::Number(*phase)),
                ("position", Value::Number(position as f64)),
                ("config", config.clone()),
            ])
        });
        let draft = [("version", Value::Number(2.0)), ("flowConfig", settings), ("nodes", Value::list(nodes))];
        let members = [("key", text("main")), ("name", text("main")), ("draftConfig", Value::map(draft))];
        self.create(EntityKind::Flow, "main", &members);
        self.made.apply(Op::PublishFlow { id: "main".to_owned() });
        self.made.apply(Op::UpdateSettings { patch: Value::map([("defaultFlowKey", text("main"))]) });
        assert!(self.made.refused.is_empty(), "{:?}", self.made.refused);
        self
    }

    pub fn catalog(&self) -> &TenantCatalog {
        self.made.catalog.tenant(&self.made.tenant).expect("the scene makes the tenant")
    }

    pub fn key(&self, id: &str) -> OfferKey {
        self.catalog().offers().key_of(id).expect("the scene made it")
    }

    pub fn saw(&mut self, offer: &str, hours_ago: i64) -> &mut Self {
        let seen = Exposure::new(
            self.now.plus_ms(-hours_ago * HOUR_MS),
            self.key(offer),
            CreativeKey::NONE,
            ChannelKey(0),
            PlacementKey::NONE,
        );
        self.profile.exposures.push(seen);
        self
    }

    pub fn has(&mut self, name: &str, value: Value) -> &mut Self {
        let symbol = self.symbols.intern(name);
        let mut attributes = std::mem::take(&mut self.profile.attributes).into_vec();
        attributes.push((symbol, value));
        self.profile.attributes = attributes.into();
        self
    }

    pub fn request(&self) -> Request {
        Request {
            tenant: self.made.tenant.clone(),
            customer: CustomerId::new("ada"),
            channel: Some(ChannelKey(0)),
            slots: Vec::new(),
            flow: None,
            limit: None,
            attributes: Vec::new(),
            context: Vec::new(),
            segments: Vec::new(),
            exclude_offers: Vec::new(),
            exclude_creatives: Vec::new(),
            duplicates: Duplicates::Never,
            arbitration: None,
            explain: Explain::Full { limit: 100 },
            counters: true,
        }
    }

    /// A request for placements `top` (0) and `side` (1).
    pub fn placed(&self, placements: &[u32]) -> Request {
        let slot = |placement: &u32| SlotRequest { target: SlotTarget::Placement(PlacementKey(*placement)), limit: 1 };
        Request { slots: placements.iter().map(slot).collect(), ..self.request() }
    }

    pub fn world(&self) -> World {
        let at = Instant { now: self.now, frame: Calendar::of(self.catalog().settings()).frame(self.now) };
        World {
            profile: Some(self.profile.clone()),
            symbols: self.symbols.clone(),
            escrow: Escrow::default(),
            at,
            learned: Arc::new(Learned::new(self.tallies.clone())),
        }
    }

    /// Decides, and takes what that proposes: the customer has it behind them.
    pub fn take(&mut self, request: &Request) -> Vec<String> {
        let proposed = self.proposed(request);
        let (catalog, world) = (self.catalog(), self.world());
        let snapshot = Snapshot::compile(&self.made.tenant, catalog, self.made.revision());
        let mut kernel = Kernel::default();
        let decision = kernel.decide(&snapshot, &world, request);
        if let Some(take) = kernel.take(&snapshot, &world, request, &decision) {
            let next = world.after(take).expect("what was decided can be taken");
            self.profile = next.profile.expect("a take leaves a profile");
        }
        proposed
    }

    /// What both evaluations decide.
    pub fn decide(&self, request: &Request) -> Decision {
        let (catalog, world) = (self.catalog(), self.world());
        let snapshot = Snapshot::compile(&self.made.tenant, catalog, self.made.revision());
        let decision = Kernel::default().decide(&snapshot, &world, request);
        assert_eq!(decision, naive(catalog, &world, request));
        decision
    }

    /// Ids of the offers proposed for `request`, in order.
    pub fn proposed(&self, request: &Request) -> Vec<String> {
        let id = |key: OfferKey| self.catalog().offers().get(key).map_or(String::new(), |offer| offer.id.clone());
        self.decide(request).propositions.iter().map(|proposition| id(proposition.offer)).collect()
    }

    pub fn why(&self, request: &Request, offer: &str) -> Option<RemovalReason> {
        let explanation = self.decide(request).explanation.expect("it was asked for");
        explanation.removed.iter().find(|removed| removed.offer == self.key(offer)).map(|removed| removed.reason)
    }
}

pub fn text(text: &str) -> Value {
    Value::text(text)
}

pub fn number(number: f64) -> Value {
    Value::Number(number)
}

pub fn close(left: f64, right: f64) -> bool {
    (left - right).abs() < 1e-12
}
