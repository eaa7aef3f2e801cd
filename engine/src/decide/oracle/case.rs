//! Everything one decision looks at: facts by name, segments, fields of offers, values of expressions.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use super::flow::Flow;
use super::metrics::metric_value;
use crate::catalog::TenantCatalog;
use crate::decide::request::Request;
use crate::decide::view::{EscrowView, Instant};
use crate::expr::{self, Environment, Name, Namespace, Resolver, Source};
use crate::keys::{CategoryKey, OfferKey, Slot as FactSlot, SubCategoryKey};
use crate::learn::Tallies;
use crate::model::category::{CustomField, CustomFieldType, OutputType};
use crate::model::offer::Offer;
use crate::model::record::{Field, Record};
use crate::model::schema::SchemaEntity;
use crate::model::scoring::FACTOR_NAMES;
use crate::model::{Entity, Status};
use crate::profile::state::Profile;
use crate::profile::symbols::Symbols;
use crate::time::{Calendar, Timestamp};
use crate::value::Value;

pub(super) type OfferRow = Entity<OfferKey, Offer>;

/// One decision's world.
pub(super) struct Case<'a> {
    pub(super) catalog: &'a TenantCatalog,
    pub(super) calendar: Calendar,
    pub(super) profile: &'a Profile,
    pub(super) escrow: &'a dyn EscrowView,
    /// What was counted, of all shards together.
    pub(super) tallies: &'a Tallies,
    pub(super) request: &'a Request,
    pub(super) at: Instant,
    /// What random draws derive from.
    pub(super) seed: u64,
    pub(super) flow: Flow,
    pub(super) segments: BTreeSet<String>,
    /// `customer.x`, `attributes.x`, `context.x` and what enrich nodes name, by full name.
    facts: BTreeMap<String, Value>,
    /// Computed fields by offer and name: fields that build on each other would else be computed again and again.
    computed: RefCell<BTreeMap<(OfferKey, String), Value>>,
}

impl<'a> Case<'a> {
    #[expect(clippy::too_many_arguments, reason = "what a decision reads")]
    pub(super) fn new(
        catalog: &'a TenantCatalog,
        profile: &'a Profile,
        symbols: &Symbols,
        escrow: &'a dyn EscrowView,
        tallies: &'a Tallies,
        request: &'a Request,
        at: Instant,
        seed: u64,
    ) -> Self {
        let mut flow = Flow::choose(catalog, request);
        let mut segments: BTreeSet<String> =
            profile.segments.iter().map(|symbol| symbols.name(*symbol).to_string()).collect();
        segments.extend(request.segments.iter().map(|segment| segment.to_string()));
        let mut known = facts(catalog, profile, symbols, request, &flow);
        // Branches are chosen by what is loaded on every way.
        let known_to_all = |name: &Name| match name.namespace {
            Namespace::Metric => metric_value(catalog, profile, request, at.now, &name.path, None),
            Namespace::Bare
            | Namespace::Offer
            | Namespace::Customer
            | Namespace::Attributes
            | Namespace::Context
            | Namespace::Other(_) => known.get(&name.to_string()).cloned().unwrap_or_default(),
        };
        let holds = |when: &str| evaluate_for_all(when, &known_to_all, at.now) == Value::Bool(true);
        if let Some(chosen) = flow.choose_branches(catalog, &holds) {
            flow = chosen;
            known = facts(catalog, profile, symbols, request, &flow);
        }
        let facts = known;
        let calendar = Calendar::of(catalog.settings());
        Case {
            catalog,
            calendar,
            profile,
            escrow,
            tallies,
            request,
            at,
            seed,
            flow,
            segments,
            facts,
            computed: RefCell::default(),
        }
    }

    pub(super) fn now(&self) -> Timestamp {
        self.at.now
    }

    pub(super) fn is_in_all(&self, segments: &[String]) -> bool {
        segments.iter().all(|segment| self.segments.contains(segment))
    }

    pub(super) fn category_of(&self, offer: &Offer) -> Option<CategoryKey> {
        self.catalog.categories().key_of(&offer.category_id.as_ref()?.0)
    }

    pub(super) fn sub_category_of(&self, offer: &Offer) -> Option<SubCategoryKey> {
        self.catalog.sub_categories().key_of(&offer.sub_category_id.as_ref()?.0)
    }

    /// What `name` stands for where `offer` is at hand.
    pub(super) fn value(&self, name: &Name, offer: &OfferRow) -> Value {
        match name.namespace {
            Namespace::Bare => self.custom_field(&name.path, offer),
            Namespace::Offer => self.offer_field(&name.path, offer),
            Namespace::Customer | Namespace::Attributes | Namespace::Context | Namespace::Other(_) => {
                self.facts.get(&name.to_string()).cloned().unwrap_or_default()
            }
            Namespace::Metric => {
                let candidate = (offer.key, self.category_of(&offer.body));
                metric_value(self.catalog, self.profile, self.request, self.at.now, &name.path, Some(candidate))
            }
        }
    }

    /// A built-in field of the offer, else a custom one.
    fn offer_field(&self, name: &str, offer: &OfferRow) -> Value {
        if name == "id" {
            return Value::text(&offer.id);
        }
        if name == "category" {
            let category = self.category_of(&offer.body).and_then(|category| self.catalog.categories().get(category));
            return category.map_or(Value::Null, |category| Value::text(&category.body.name));
        }
        if Offer::MEMBERS.contains(&name) {
            let written = offer.body.write();
            return written.as_map().and_then(|members| members.get(name)).cloned().unwrap_or_default();
        }
        self.custom_field(name, offer)
    }

    fn custom_field(&self, name: &str, offer: &OfferRow) -> Value {
        let computed = self.custom_fields(offer).iter().find(|field| is_computed(field) && field.name == name);
        match computed {
            Some(field) => self.compute(field, offer),
            None => offer.body.custom_fields.get(name).cloned().unwrap_or_default(),
        }
    }

    /// The schema that the offer's category gives its offers.
    pub(super) fn custom_fields(&self, offer: &OfferRow) -> &[CustomField] {
        let category = self.category_of(&offer.body).and_then(|category| self.catalog.categories().get(category));
        category.map_or(&[], |category| &category.body.custom_fields)
    }

    /// The value of a computed field; null if it is not of the declared type.
    pub(super) fn compute(&self, field: &CustomField, offer: &OfferRow) -> Value {
        let place = (offer.key, field.name.clone());
        let known = self.computed.borrow().get(&place).cloned();
        if let Some(known) = known {
            return known;
        }
        let value = field.formula.as_ref().map_or(Value::Null, |formula| self.evaluate(formula, offer));
        let value = match (field.output_type, &value) {
            (None, _) | (Some(OutputType::Number), Value::Number(_)) | (Some(OutputType::Text), Value::Text(_)) => {
                value
            }
            (Some(OutputType::Number | OutputType::Text), _) => Value::Null,
        };
        self.computed.borrow_mut().insert(place, value.clone());
        value
    }

    /// The value of a formula that scores `offer`: bare names of factors stand for them.
    pub(super) fn evaluate_score(&self, text: &str, offer: &OfferRow, factors: [f64; 5]) -> Value {
        struct Factored<'c, 'a>(Substitution<'c, 'a>, [f64; 5]);
        impl Resolver for Factored<'_, '_> {
            fn resolve(&mut self, name: &Name) -> Source {
                let place = FACTOR_NAMES.iter().position(|factor| name.to_string() == *factor);
                place.map_or_else(|| self.0.resolve(name), |place| Source::Constant(Value::Number(self.1[place])))
            }
        }
        let Ok(ast) = expr::parse(text) else { return Value::Null };
        let program = expr::compile(&ast, &mut Factored(Substitution { case: self, offer }, factors));
        program.eval(&Nowhere { now: self.now() })
    }

    /// The value of an expression about `offer`. Names are replaced by what they stand for before anything is computed.
    pub(super) fn evaluate(&self, text: &str, offer: &OfferRow) -> Value {
        let Ok(ast) = expr::parse(text) else { return Value::Null };
        let program = expr::compile(&ast, &mut Substitution { case: self, offer });
        program.eval(&Nowhere { now: self.now() })
    }
}

pub(super) fn is_computed(field: &CustomField) -> bool {
    field.field_type == CustomFieldType::Computed
}

struct Substitution<'c, 'a> {
    case: &'c Case<'a>,
    offer: &'c OfferRow,
}

impl Resolver for Substitution<'_, '_> {
    fn resolve(&mut self, name: &Name) -> Source {
        Source::Constant(self.case.value(name, self.offer))
    }
}

/// The value of an expression about no offer.
fn evaluate_for_all(text: &str, known: &dyn Fn(&Name) -> Value, now: Timestamp) -> Value {
    struct Known<'f>(&'f dyn Fn(&Name) -> Value);
    impl Resolver for Known<'_> {
        fn resolve(&mut self, name: &Name) -> Source {
            Source::Constant((self.0)(name))
        }
    }
    let Ok(ast) = expr::parse(text) else { return Value::Null };
    expr::compile(&ast, &mut Known(known)).eval(&Nowhere { now })
}

/// Knows the time and nothing else.
struct Nowhere {
    now: Timestamp,
}

impl Environment for Nowhere {
    fn fact(&self, _: FactSlot) -> &Value {
        &Value::Null
    }

    fn offer(&self, _: u16) -> Value {
        Value::Null
    }

    fn now(&self) -> Timestamp {
        self.now
    }
}

/// All facts: attributes of the profile, overlaid by its rows in source order, then the request's own.
fn facts(
    catalog: &TenantCatalog,
    profile: &Profile,
    symbols: &Symbols,
    request: &Request,
    flow: &Flow,
) -> BTreeMap<String, Value> {
    let mut facts = BTreeMap::new();
    for (symbol, value) in &profile.attributes {
        facts.insert(format!("customer.{}", symbols.name(*symbol)), value.clone());
    }
    for source in &flow.sources {
        let schema = catalog.schemas().by_id(&source.schema_id.0);
        let usable = |schema: &&std::sync::Arc<Entity<_, crate::model::schema::Schema>>| {
            schema.body.status == Status::Active && schema.body.entity_type == SchemaEntity::Customer
        };
        let Some(row) = schema.filter(usable).and_then(|schema| profile.row(schema.key)) else { continue };
        for (symbol, value) in row {
            let column = symbols.name(*symbol).to_string();
            if source.fields.is_empty() || source.fields.contains(&column) {
                facts.insert(format!("{}.{column}", source.prefix), value.clone());
            }
        }
    }
    let channel = request.channel.and_then(|channel| catalog.channels().get(channel));
    if let Some(channel) = channel {
        facts.insert("attributes.channel".to_owned(), Value::text(&channel.body.name));
    }
    for (prefix, named) in [("attributes", &request.attributes), ("context", &request.context)] {
        for (name, value) in named {
            facts.insert(format!("{prefix}.{name}"), value.clone());
        }
    }
    facts
}
