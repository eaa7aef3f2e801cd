//! Names become numbers once: facts become slots, segments numbers, offer fields columns. A decision hashes no stored name.

use std::sync::Arc;

use hashbrown::HashMap;

use super::schedule::OpenCache;
use crate::expr::{Name, Namespace};
use crate::keys::Slot;
use crate::profile::symbols::Symbols;

/// Slots for facts: more than [`NAMES_READ_MAX`](crate::limits::NAMES_READ_MAX), which writes keep to, and past updates of
/// one snapshot need; names past it read as null.
pub const FACTS_MAX: usize = u16::MAX as usize;
/// The same for fields of offers.
pub const FIELDS_MAX: usize = u16::MAX as usize;

/// No slot, no segment: a name that nothing compiled asks for.
pub const UNREAD: u32 = u32::MAX;

/// A field of the offer that an expression or rule reads.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Field {
    /// Whether built-in fields go before custom ones (`offer.x`), or only custom ones are meant (a bare `x`).
    pub built_in: bool,
    /// Wire name.
    pub name: String,
}

/// Number of the namespace `customer`.
pub const CUSTOMER: u16 = 0;
/// Number of the namespace `attributes`.
pub const ATTRIBUTES: u16 = 1;
/// Number of the namespace `context`.
pub const CONTEXT: u16 = 2;

/// All names that the compiled rules, flows and formulas of a tenant read. Numbers are never taken back, so that compiled
/// parts stay valid when an update adds names.
#[derive(Clone, Debug)]
pub struct Names {
    /// By number: the namespace's prefix, and the slots of what is read in it.
    namespaces: Vec<(String, HashMap<Box<str>, Slot>)>,
    fact_count: usize,
    segments: HashMap<Box<str>, u32>,
    fields: Vec<Field>,
    field_numbers: HashMap<Field, u16>,
}

impl Default for Names {
    fn default() -> Self {
        Names::new()
    }
}

impl Names {
    /// Knows only the namespaces of customer and request.
    pub fn new() -> Self {
        Names {
            namespaces: ["customer", "attributes", "context"].map(|name| (name.to_owned(), HashMap::new())).into(),
            fact_count: 0,
            segments: HashMap::new(),
            fields: Vec::new(),
            field_numbers: HashMap::new(),
        }
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
        let slots = &mut self.namespaces[usize::from(namespace)].1;
        if let Some(slot) = slots.get(name.path.as_str()) {
            return Some(*slot);
        }
        let slot = Slot(u16::try_from(self.fact_count).ok().filter(|_| self.fact_count < FACTS_MAX)?);
        slots.insert(name.path.as_str().into(), slot);
        self.fact_count += 1;
        Some(slot)
    }

    /// The number of a segment, given now if it is new.
    pub fn segment(&mut self, name: &str) -> u32 {
        if let Some(number) = self.segments.get(name) {
            return *number;
        }
        let number = self.segments.len() as u32;
        self.segments.insert(name.into(), number);
        number
    }

    /// The number of an offer field, given now if it is new.
    pub fn field(&mut self, field: Field) -> Option<u16> {
        if let Some(number) = self.field_numbers.get(&field) {
            return Some(*number);
        }
        let number = u16::try_from(self.fields.len()).ok().filter(|number| usize::from(*number) < FIELDS_MAX)?;
        self.fields.push(field.clone());
        self.field_numbers.insert(field, number);
        Some(number)
    }

    /// The number of a namespace that rows are loaded into, given now if it is new; `None` for one too many.
    pub fn namespace(&mut self, prefix: &str) -> Option<u16> {
        if let Some(number) = self.find_namespace(prefix) {
            return Some(number);
        }
        let number = u16::try_from(self.namespaces.len()).ok()?;
        self.namespaces.push((prefix.to_owned(), HashMap::new()));
        Some(number)
    }

    fn find_namespace(&self, prefix: &str) -> Option<u16> {
        let found = self.namespaces.iter().position(|(known, _)| known == prefix)?;
        u16::try_from(found).ok()
    }

    /// The slot of a name in a namespace, if anything compiled reads it.
    pub fn find_fact(&self, namespace: u16, path: &str) -> Option<Slot> {
        self.namespaces[usize::from(namespace)].1.get(path).copied()
    }

    /// The number of a segment, if anything compiled asks for it.
    pub fn find_segment(&self, name: &str) -> Option<u32> {
        self.segments.get(name).copied()
    }

    /// Number of facts.
    pub fn fact_count(&self) -> usize {
        self.fact_count
    }

    /// How many facts, segments, fields and namespaces are known: equal counts of one lineage are equal names.
    pub(crate) fn counts(&self) -> [usize; 4] {
        [self.fact_count, self.segments.len(), self.fields.len(), self.namespaces.len()]
    }

    /// Whether anything compiled reads one of these built-in fields of offers. O(fields read).
    pub(crate) fn reads_built_in(&self, names: &[&str]) -> bool {
        self.fields.iter().any(|field| field.built_in && names.contains(&field.name.as_str()))
    }

    /// Offer fields by number.
    pub fn fields(&self) -> &[Field] {
        &self.fields
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
        self.slots.resize(names.namespaces.len(), Vec::new());
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
