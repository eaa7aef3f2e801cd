//! Names become numbers once: facts become slots, segments numbers, offer fields columns. A decision hashes no stored name.

use std::collections::BTreeMap;
use std::sync::Arc;

use hashbrown::HashMap;

use super::metrics::Reading;
use super::schedule::OpenCache;
use crate::catalog::TenantCatalog;
use crate::expr::{Name, Namespace, Source};
use crate::keys::{MetricKey, Slot};
use crate::profile::symbols::Symbols;

/// Slots for facts: more than [`NAMES_READ_MAX`](crate::limits::NAMES_READ_MAX), which writes keep to, and past updates of
/// one snapshot need; names past it read as null.
pub const FACTS_MAX: usize = u16::MAX as usize;
/// The same for fields of offers.
pub const FIELDS_MAX: usize = FACTORS_FROM as usize;
/// Numbers from here on stand for the factors of a score in its formula.
pub(crate) const FACTORS_FROM: u16 = u16::MAX - 15;

/// No slot, no segment: a name that nothing compiled asks for.
pub const UNREAD: u32 = u32::MAX;

/// A field of the offer that an expression or rule reads.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Field {
    /// Whether built-in fields go before custom ones (`offer.x`), or only custom ones are meant (a bare `x`).
    pub built_in: bool,
    /// Wire name.
    pub name: String,
    /// A metric that differs from offer to offer, in place of a field.
    pub metric: Option<Reading>,
}

impl Field {
    /// `offer.name`, or a bare name.
    pub(crate) fn of_offer(name: &str, built_in: bool) -> Self {
        Field { built_in, name: name.to_owned(), metric: None }
    }
}

/// Number of the namespace `customer`.
pub const CUSTOMER: u16 = 0;
/// Number of the namespace `attributes`.
pub const ATTRIBUTES: u16 = 1;
/// Number of the namespace `context`.
pub const CONTEXT: u16 = 2;

/// All names that the compiled rules, flows and formulas of a tenant read. Numbers are never taken back, so that compiled
/// parts stay valid when an update adds names. A clone copies a pointer until it is given a new name.
#[derive(Clone, Debug)]
pub struct Names(Arc<Known>);

#[derive(Clone, Debug)]
struct Known {
    /// By number: the namespace's prefix, and the slots of what is read in it.
    namespaces: Vec<(String, HashMap<Box<str>, Slot>)>,
    fact_count: usize,
    segments: HashMap<Box<str>, u32>,
    fields: Vec<Field>,
    field_numbers: HashMap<Field, u16>,
    /// Metrics of the tenant by name, and whether they differ from offer to offer.
    metrics: BTreeMap<Box<str>, (MetricKey, bool)>,
    /// Slots of metrics that are the same for all offers.
    measured: Vec<(Slot, Reading)>,
}

impl Default for Names {
    fn default() -> Self {
        Names::new()
    }
}

impl Names {
    /// Knows only the namespaces of customer and request.
    pub fn new() -> Self {
        Names(Arc::new(Known {
            namespaces: ["customer", "attributes", "context"].map(|name| (name.to_owned(), HashMap::new())).into(),
            fact_count: 0,
            segments: HashMap::new(),
            fields: Vec::new(),
            field_numbers: HashMap::new(),
            metrics: BTreeMap::new(),
            measured: Vec::new(),
        }))
    }

    /// What names of metrics stand for from now on: what reads them is compiled after this.
    pub(crate) fn know_metrics(&mut self, catalog: &TenantCatalog) {
        let metrics = catalog.metrics().iter();
        let metrics =
            metrics.map(|row| (row.body.name.as_str().into(), (row.key, row.body.is_by_candidate()))).collect();
        if self.0.metrics != metrics {
            Arc::make_mut(&mut self.0).metrics = metrics;
        }
    }

    /// Whether names of metrics stand for the same here and there.
    pub(crate) fn agree_on_metrics(&self, other: &Names) -> bool {
        self.0.metrics == other.0.metrics
    }

    /// Where the metric that `path` names is read; `None` if there is none, or no room for one more name.
    pub(crate) fn metric(&mut self, path: &str) -> Option<Source> {
        let (name, property) = path.split_once('.').map_or((path, None), |(name, group)| (name, Some(group)));
        let (metric, by_candidate) = *self.0.metrics.get(name)?;
        let reading = Reading { metric, property: property.map(Arc::from) };
        if by_candidate {
            let field = Field { built_in: false, name: path.to_owned(), metric: Some(reading) };
            return self.field(field).map(Source::Offer);
        }
        let known = self.0.measured.iter().find(|(_, known)| *known == reading).map(|(slot, _)| *slot);
        known.or_else(|| self.measure(reading)).map(Source::Fact)
    }

    fn measure(&mut self, reading: Reading) -> Option<Slot> {
        let slot = self.next_slot()?;
        let known = Arc::make_mut(&mut self.0);
        known.measured.push((slot, reading));
        known.fact_count += 1;
        Some(slot)
    }

    fn next_slot(&self) -> Option<Slot> {
        let count = self.fact_count();
        u16::try_from(count).ok().filter(|_| count < FACTS_MAX).map(Slot)
    }

    /// The metrics that are the same for all offers and that anything compiled reads, each with its slot.
    pub(crate) fn measured(&self) -> &[(Slot, Reading)] {
        &self.0.measured
    }

    /// The slot of a fact, given now if it is new; `None` for names that are no facts, or too many.
    pub fn fact(&mut self, name: &Name) -> Option<Slot> {
        let namespace = match &name.namespace {
            Namespace::Customer => CUSTOMER,
            Namespace::Attributes => ATTRIBUTES,
            Namespace::Context => CONTEXT,
            // Flows are compiled first: rows are loaded under no other prefix, so a name with one is null everywhere.
            Namespace::Other(prefix) => self.find_namespace(prefix)?,
            Namespace::Bare | Namespace::Offer | Namespace::Metric => return None,
        };
        if let Some(slot) = self.find_fact(namespace, &name.path) {
            return Some(slot);
        }
        let slot = self.next_slot()?;
        let known = Arc::make_mut(&mut self.0);
        known.namespaces[usize::from(namespace)].1.insert(name.path.as_str().into(), slot);
        known.fact_count += 1;
        Some(slot)
    }

    /// The number of a segment, given now if it is new.
    pub fn segment(&mut self, name: &str) -> u32 {
        if let Some(number) = self.find_segment(name) {
            return number;
        }
        let known = Arc::make_mut(&mut self.0);
        let number = known.segments.len() as u32;
        known.segments.insert(name.into(), number);
        number
    }

    /// The number of an offer field, given now if it is new.
    pub fn field(&mut self, field: Field) -> Option<u16> {
        if let Some(number) = self.0.field_numbers.get(&field) {
            return Some(*number);
        }
        let number = u16::try_from(self.fields().len()).ok().filter(|number| usize::from(*number) < FIELDS_MAX)?;
        let known = Arc::make_mut(&mut self.0);
        known.fields.push(field.clone());
        known.field_numbers.insert(field, number);
        Some(number)
    }

    /// The number of a namespace that rows are loaded into, given now if it is new; `None` for one too many.
    pub fn namespace(&mut self, prefix: &str) -> Option<u16> {
        if let Some(number) = self.find_namespace(prefix) {
            return Some(number);
        }
        let number = u16::try_from(self.namespace_count()).ok()?;
        Arc::make_mut(&mut self.0).namespaces.push((prefix.to_owned(), HashMap::new()));
        Some(number)
    }

    /// Number of namespaces: those of customer and request, and one for each prefix that flows load rows under.
    pub(crate) fn namespace_count(&self) -> usize {
        self.0.namespaces.len()
    }

    fn find_namespace(&self, prefix: &str) -> Option<u16> {
        let found = self.0.namespaces.iter().position(|(known, _)| known == prefix)?;
        u16::try_from(found).ok()
    }

    /// The slot of a name in a namespace, if anything compiled reads it.
    pub fn find_fact(&self, namespace: u16, path: &str) -> Option<Slot> {
        self.0.namespaces[usize::from(namespace)].1.get(path).copied()
    }

    /// The number of a segment, if anything compiled asks for it.
    pub fn find_segment(&self, name: &str) -> Option<u32> {
        self.0.segments.get(name).copied()
    }

    /// Number of facts.
    pub fn fact_count(&self) -> usize {
        self.0.fact_count
    }

    /// Number of facts, segments, fields and namespaces together: it grows with every new name.
    pub(crate) fn count(&self) -> usize {
        self.0.fact_count + self.0.segments.len() + self.0.fields.len() + self.0.namespaces.len()
    }

    /// Whether anything compiled reads one of these built-in fields of offers. O(fields read).
    pub(crate) fn reads_built_in(&self, names: &[&str]) -> bool {
        self.0.fields.iter().any(|field| field.built_in && names.contains(&field.name.as_str()))
    }

    /// Offer fields by number.
    pub fn fields(&self) -> &[Field] {
        &self.0.fields
    }
}

/// A shard's cache for one tenant: where its symbols lie in a snapshot, and which schedules are open this minute. It
/// follows the snapshot and the growing symbol table by itself.
#[derive(Clone, Debug, Default)]
pub struct Binding {
    names: Option<Arc<Names>>,
    /// Symbols bound so far.
    symbols: usize,
    /// Per namespace, the slot of each symbol, or [`UNREAD`].
    slots: Vec<Vec<u32>>,
    /// The number of each symbol as a segment, or [`UNREAD`].
    segments: Vec<u32>,
    pub(crate) open: OpenCache,
}

impl Binding {
    /// Nothing bound yet.
    pub fn new() -> Self {
        Binding::default()
    }

    /// Makes the binding hold for these names and symbols. O(1) unless either changed.
    pub(crate) fn follow(&mut self, names: &Arc<Names>, symbols: &Symbols) {
        let same = self.names.as_ref().is_some_and(|known| Arc::ptr_eq(known, names)) && self.symbols <= symbols.len();
        if same && self.symbols == symbols.len() {
            return;
        }
        if !same {
            self.names = Some(Arc::clone(names));
            self.symbols = 0;
            self.slots.clear();
            self.segments.clear();
        }
        self.slots.resize(names.0.namespaces.len(), Vec::new());
        for symbol in &symbols.names()[self.symbols..] {
            for (slots, namespace) in self.slots.iter_mut().zip(0..) {
                slots.push(names.find_fact(namespace, symbol).map_or(UNREAD, |slot| u32::from(slot.0)));
            }
            self.segments.push(names.find_segment(symbol).unwrap_or(UNREAD));
        }
        self.symbols = symbols.len();
    }

    /// The slots of all symbols in a namespace, or [`UNREAD`].
    pub(crate) fn slots(&self, namespace: u16) -> &[u32] {
        &self.slots[usize::from(namespace)]
    }

    /// The segment numbers of all symbols, or [`UNREAD`].
    pub(crate) fn segments(&self) -> &[u32] {
        &self.segments
    }
}
