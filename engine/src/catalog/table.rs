//! One kind of entity: rows by key, found by id and by name.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::catalog::by_key::ByKey;
use crate::keys::{
    ActivityKey, CategoryKey, ChannelKey, CollectionKey, CreativeKey, FlowKey, GuardrailKey, MetricKey, ModelKey,
    OfferKey, PlacementKey, PolicyKey, RuleKey, SchemaKey, SubCategoryKey,
};
use crate::model::{Entity, Ref};

/// A key that a table can give: a number counted up from 0, never reused.
pub trait TableKey: Copy + Ord + std::fmt::Debug {
    /// Smallest key.
    const FIRST: Self;
    /// Largest key.
    const LAST: Self;

    /// The `index`-th key, unless the kind has run out of keys.
    fn from_index(index: u32) -> Option<Self>;

    /// The key's number.
    fn index(self) -> u32;
}

macro_rules! table_key {
    ($($name:ident($inner:ty)),+) => {$(
        impl TableKey for $name {
            const FIRST: Self = $name(0);
            const LAST: Self = $name(<$inner>::MAX);

            fn from_index(index: u32) -> Option<Self> {
                // The largest number is kept free: it stands for "none" in several kinds.
                <$inner>::try_from(index).ok().filter(|index| *index != <$inner>::MAX).map($name)
            }

            fn index(self) -> u32 {
                u32::from(self.0)
            }
        }
    )+};
}
table_key!(
    OfferKey(u32),
    CreativeKey(u32),
    CategoryKey(u32),
    SubCategoryKey(u32),
    ChannelKey(u16),
    PlacementKey(u32),
    CollectionKey(u32),
    ActivityKey(u32),
    RuleKey(u32),
    PolicyKey(u32),
    SchemaKey(u32),
    FlowKey(u32),
    GuardrailKey(u32),
    MetricKey(u32),
    ModelKey(u32)
);

/// What a reference stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolved<K> {
    /// Exactly this.
    Found(K),
    /// Neither id nor name of anything.
    Unknown,
    /// The name of several things.
    Ambiguous,
}

/// All entities of one kind. Rows are shared: cloning a table copies pointers, not bodies.
#[derive(Clone, Debug)]
pub struct Table<K, T> {
    rows: ByKey<K, Arc<Entity<K, T>>>,
    /// Number of the next key.
    next: u32,
    /// Ids of deleted rows: ids are never reused.
    retired: BTreeSet<String>,
    ids: BTreeMap<String, K>,
    names: BTreeSet<(String, K)>,
}

impl<K: TableKey, T> Default for Table<K, T> {
    fn default() -> Self {
        Table {
            rows: ByKey::default(),
            next: 0,
            retired: BTreeSet::new(),
            ids: BTreeMap::new(),
            names: BTreeSet::new(),
        }
    }
}

impl<K: TableKey, T> Table<K, T> {
    /// Rows, O(1).
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.rows.len() == 0
    }

    /// All rows by key, which is the order they were made in.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Arc<Entity<K, T>>> {
        self.rows.values()
    }

    /// Rows with keys after `after`.
    pub fn iter_after(&self, after: Option<K>) -> impl Iterator<Item = &Arc<Entity<K, T>>> {
        self.rows.values_after(after)
    }

    /// The row with this key, O(1).
    pub fn get(&self, key: K) -> Option<&Arc<Entity<K, T>>> {
        self.rows.get(key)
    }

    /// The row with this id, O(log n).
    pub fn by_id(&self, id: &str) -> Option<&Arc<Entity<K, T>>> {
        self.rows.get(*self.ids.get(id)?)
    }

    /// The key of the row with this id: what a stored [`Ref`] stands for. O(log n).
    pub fn key_of(&self, id: &str) -> Option<K> {
        self.ids.get(id).copied()
    }

    /// The row with exactly this name, if there is exactly one.
    pub fn by_name(&self, name: &str) -> Option<&Arc<Entity<K, T>>> {
        match self.resolve_name(name) {
            Resolved::Found(key) => self.rows.get(key),
            Resolved::Unknown | Resolved::Ambiguous => None,
        }
    }

    /// What an incoming reference stands for: an id, else an exact name.
    pub fn resolve(&self, reference: &Ref) -> Resolved<K> {
        match self.ids.get(reference.0.as_str()) {
            Some(key) => Resolved::Found(*key),
            None => self.resolve_name(&reference.0),
        }
    }

    fn resolve_name(&self, name: &str) -> Resolved<K> {
        let mut named = self.names.range((name.to_owned(), K::FIRST)..=(name.to_owned(), K::LAST));
        match (named.next(), named.next()) {
            (Some((_, key)), None) => Resolved::Found(*key),
            (None, _) => Resolved::Unknown,
            (Some(_), Some(_)) => Resolved::Ambiguous,
        }
    }

    /// Whether another row than `except` has this name.
    pub(crate) fn is_name_taken(&self, name: &str, except: Option<K>) -> bool {
        self.names.range((name.to_owned(), K::FIRST)..=(name.to_owned(), K::LAST)).any(|(_, key)| Some(*key) != except)
    }

    /// Whether a row has or ever had this id.
    pub(crate) fn is_id_used(&self, id: &str) -> bool {
        self.ids.contains_key(id) || self.retired.contains(id)
    }

    /// The key the next new row gets; `None` when all were given.
    pub(crate) fn next_key(&self) -> Option<K> {
        K::from_index(self.next)
    }

    /// Adds or replaces a row; `name` is what it can be referenced by. Returns the row it replaced.
    pub(crate) fn put(&mut self, row: Entity<K, T>, name: &str, old_name: Option<&str>) -> Option<Arc<Entity<K, T>>> {
        let key = row.key;
        self.next = self.next.max(key.index() + 1);
        if old_name != Some(name) {
            if let Some(old) = old_name {
                self.names.remove(&(old.to_owned(), key));
            }
            self.names.insert((name.to_owned(), key));
        }
        if self.rows.get(key).is_none() {
            self.ids.insert(row.id.clone(), key);
        }
        self.rows.insert(key, Arc::new(row))
    }

    /// Removes a row for good.
    pub(crate) fn remove(&mut self, key: K, name: &str) -> Option<Arc<Entity<K, T>>> {
        let row = self.rows.remove(key)?;
        self.ids.remove(&row.id);
        self.names.remove(&(name.to_owned(), key));
        self.retired.insert(row.id.clone());
        Some(row)
    }

    /// What cannot be derived from the rows: the next key and the retired ids.
    pub(crate) fn memory(&self) -> (u32, &BTreeSet<String>) {
        (self.next, &self.retired)
    }

    /// The table of these rows, for decoding.
    ///
    /// # Errors
    /// Says which row contradicts another one.
    pub(crate) fn rebuild(
        rows: Vec<Entity<K, T>>,
        next: u32,
        retired: BTreeSet<String>,
        name: impl Fn(&T) -> &str,
    ) -> Result<Self, String> {
        // Each key ever given is a row's or was a retired id's.
        if next as usize != rows.len() + retired.len() {
            return Err(format!("{next} keys were given to {} rows and {} that are gone", rows.len(), retired.len()));
        }
        let mut table = Table { next, retired, ..Table::default() };
        for row in rows {
            if row.key.index() >= next || table.rows.get(row.key).is_some() || table.is_id_used(&row.id) {
                return Err(format!("row {:?} has a key or id that cannot be", row.id));
            }
            table.ids.insert(row.id.clone(), row.key);
            table.names.insert((name(&row.body).to_owned(), row.key));
            table.rows.insert(row.key, Arc::new(row));
        }
        Ok(table)
    }
}
