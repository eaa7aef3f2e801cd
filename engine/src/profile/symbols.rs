//! Names interned per tenant and shard, so that a profile stores numbers and a decision never hashes a stored name.

use std::collections::BTreeMap;
use std::sync::Arc;

use bincode::{Decode, Encode};

use crate::keys::Symbol;

/// Names of attributes, columns and segments, numbered in the order they were first seen. Grows only.
#[derive(Clone, Debug, Default, PartialEq, Encode, Decode)]
pub struct Symbols {
    names: Vec<Arc<str>>,
    numbers: BTreeMap<Arc<str>, Symbol>,
}

impl Symbols {
    /// The symbol of `name`, given now if it is new.
    pub fn intern(&mut self, name: &str) -> Symbol {
        if let Some(symbol) = self.numbers.get(name) {
            return *symbol;
        }
        let symbol = Symbol(u32::try_from(self.names.len()).expect("a shard's names are limited"));
        let name: Arc<str> = Arc::from(name);
        self.names.push(Arc::clone(&name));
        self.numbers.insert(name, symbol);
        symbol
    }

    /// The symbol of `name`, if it has one.
    pub fn find(&self, name: &str) -> Option<Symbol> {
        self.numbers.get(name).copied()
    }

    /// The name of `symbol`.
    pub fn name(&self, symbol: Symbol) -> &Arc<str> {
        &self.names[symbol.0 as usize]
    }

    /// How many names there are: symbols are 0 up to this.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// All names in symbol order.
    pub fn names(&self) -> &[Arc<str>] {
        &self.names
    }
}
