//! Values by key, as an array: keys are counted up from 0 and never given again, so that few places stay empty.

use std::marker::PhantomData;

use crate::catalog::table::TableKey;

/// A map from keys, in their order. A key that is gone leaves an empty place of one pointer behind.
#[derive(Clone, Debug)]
pub(crate) struct ByKey<K, V> {
    places: Vec<Option<V>>,
    len: usize,
    keys: PhantomData<K>,
}

impl<K, V> Default for ByKey<K, V> {
    fn default() -> Self {
        ByKey { places: Vec::new(), len: 0, keys: PhantomData }
    }
}

impl<K: TableKey, V> ByKey<K, V> {
    /// Values, O(1).
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The value of `key`, O(1).
    pub(crate) fn get(&self, key: K) -> Option<&V> {
        self.places.get(key.index() as usize)?.as_ref()
    }

    /// Sets the value of `key`; the one it had. O(1) amortised for the next key.
    pub(crate) fn insert(&mut self, key: K, value: V) -> Option<V> {
        let index = key.index() as usize;
        if index >= self.places.len() {
            self.places.resize_with(index + 1, || None);
        }
        let old = self.places[index].replace(value);
        self.len += usize::from(old.is_none());
        old
    }

    /// Takes the value of `key` away.
    pub(crate) fn remove(&mut self, key: K) -> Option<V> {
        let old = self.places.get_mut(key.index() as usize)?.take();
        self.len -= usize::from(old.is_some());
        old
    }

    /// All values by key.
    pub(crate) fn values(&self) -> impl DoubleEndedIterator<Item = &V> {
        self.places.iter().flatten()
    }

    /// The values of keys after `after`.
    pub(crate) fn values_after(&self, after: Option<K>) -> impl DoubleEndedIterator<Item = &V> {
        let first = after.map_or(0, |key| key.index() as usize + 1);
        self.places.get(first..).unwrap_or_default().iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::keys::RuleKey;

    proptest! {
        #[test]
        fn an_array_by_key_is_a_map(writes in prop::collection::vec((0u32..40, prop::option::of(any::<u8>())), 0..80)) {
            let (mut array, mut map) = (ByKey::<RuleKey, u8>::default(), BTreeMap::new());
            for (index, value) in writes {
                let key = RuleKey(index);
                match value {
                    Some(value) => prop_assert_eq!(array.insert(key, value), map.insert(key, value)),
                    None => prop_assert_eq!(array.remove(key), map.remove(&key)),
                }
                prop_assert_eq!(array.len(), map.len());
                prop_assert_eq!(array.get(key), map.get(&key));
                prop_assert!(array.values().eq(map.values()));
                let after = map.range((std::ops::Bound::Excluded(key), std::ops::Bound::Unbounded));
                prop_assert!(array.values_after(Some(key)).eq(after.map(|(_, value)| value)));
            }
        }
    }
}
