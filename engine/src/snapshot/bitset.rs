//! Dense bitsets as slices of `u64`, bit `i` in word `i / 64`. At these sizes they beat compressed ones (architecture.md §7):
//! ten thousand offers are 157 words.

/// Words that hold `bits` bits.
pub const fn words_for(bits: usize) -> usize {
    bits.div_ceil(64)
}

/// Sets bit `bit`.
#[inline]
pub fn set(words: &mut [u64], bit: u32) {
    words[(bit / 64) as usize] |= 1 << (bit % 64);
}

/// Clears bit `bit`.
#[inline]
pub fn clear(words: &mut [u64], bit: u32) {
    words[(bit / 64) as usize] &= !(1 << (bit % 64));
}

/// Whether bit `bit` is set.
#[inline]
pub fn has(words: &[u64], bit: u32) -> bool {
    words[(bit / 64) as usize] >> (bit % 64) & 1 == 1
}

/// Sets bit `bit` to `on`.
#[inline]
pub fn put(words: &mut [u64], bit: u32, on: bool) {
    if on { set(words, bit) } else { clear(words, bit) }
}

/// Sets bit `bit` if `on`.
#[inline]
pub fn put_if(words: &mut [u64], bit: u32, on: bool) {
    if on {
        set(words, bit);
    }
}

/// `into |= from`.
#[inline]
pub fn or(into: &mut [u64], from: &[u64]) {
    for (into, from) in into.iter_mut().zip(from) {
        *into |= from;
    }
}

#[inline]
fn or_four(into: &mut [u64], [first, second, third, fourth]: [&[u64]; 4]) {
    let from = first.iter().zip(second).zip(third.iter().zip(fourth));
    for (into, ((first, second), (third, fourth))) in into.iter_mut().zip(from) {
        *into |= (first | second) | (third | fourth);
    }
}

/// `into |= from` for all, four at once: `into` is loaded and stored a quarter as often.
#[inline]
pub fn or_all<'a>(into: &mut [u64], rows: impl Iterator<Item = &'a [u64]>) {
    let mut four = smallvec::SmallVec::<[&[u64]; 4]>::new();
    for row in rows {
        four.push(row);
        if let [first, second, third, fourth] = four[..] {
            or_four(into, [first, second, third, fourth]);
            four.clear();
        }
    }
    four.iter().for_each(|row| or(into, row));
}

/// `into &= from`.
#[inline]
pub fn and(into: &mut [u64], from: &[u64]) {
    for (into, from) in into.iter_mut().zip(from) {
        *into &= from;
    }
}

/// `into &= !from`.
#[inline]
pub fn and_not(into: &mut [u64], from: &[u64]) {
    for (into, from) in into.iter_mut().zip(from) {
        *into &= !from;
    }
}

/// Number of set bits.
#[inline]
pub fn count(words: &[u64]) -> u32 {
    // Positions are u32, so their number cannot overflow; looking whether it does would keep words from going four at once.
    words.iter().fold(0, |count, word| count.wrapping_add(word.count_ones()))
}

/// Whether no bit is set.
#[inline]
pub fn is_empty(words: &[u64]) -> bool {
    words.iter().all(|word| *word == 0)
}

/// The set bits, ascending.
#[inline]
pub fn ones(words: &[u64]) -> impl Iterator<Item = u32> + '_ {
    words.iter().enumerate().flat_map(|(index, word)| ones_of(*word, index as u32 * 64))
}

/// The set bits of one word, ascending, each plus `base`.
#[inline]
pub fn ones_of(word: u64, base: u32) -> Ones {
    Ones { word, base }
}

/// See [`ones_of`].
#[derive(Clone, Copy, Debug)]
pub struct Ones {
    word: u64,
    base: u32,
}

impl Iterator for Ones {
    type Item = u32;

    #[inline]
    fn next(&mut self) -> Option<u32> {
        if self.word == 0 {
            return None;
        }
        let bit = self.word.trailing_zeros();
        self.word &= self.word - 1;
        Some(self.base + bit)
    }
}

/// An owned bitset over a fixed number of positions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bits(pub Box<[u64]>);

impl Bits {
    /// No bit of `len` set.
    pub fn none(len: usize) -> Self {
        Bits(vec![0; words_for(len)].into_boxed_slice())
    }

    /// All `len` bits set, none above.
    pub fn all(len: usize) -> Self {
        let mut bits = Bits(vec![u64::MAX; words_for(len)].into_boxed_slice());
        if !len.is_multiple_of(64)
            && let Some(last) = bits.0.last_mut()
        {
            *last = (1 << (len % 64)) - 1;
        }
        bits
    }

    /// The given bits of `len`.
    pub fn of(len: usize, members: impl IntoIterator<Item = u32>) -> Self {
        let mut bits = Bits::none(len);
        for member in members {
            set(&mut bits.0, member);
        }
        bits
    }

    /// Whether bit `bit` is set.
    pub fn has(&self, bit: u32) -> bool {
        has(&self.0, bit)
    }

    /// Itself, unless no bit is set.
    pub fn if_any(self) -> Option<Self> {
        (!is_empty(&self.0)).then_some(self)
    }
}

/// Positions as a list while they are few, as a bitset once that is cheaper to OR.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Members {
    /// Ascending.
    Few(Box<[u32]>),
    /// Dense.
    Many(Bits),
}

impl Members {
    /// The cheaper shape for `positions` (sorted or not, doubles allowed) of `len`.
    pub fn new(len: usize, mut positions: Vec<u32>) -> Self {
        // Setting a bit costs about what OR-ing eight words does.
        let few = words_for(len).max(8) / 8;
        if positions.len() > few {
            let bits = Bits::of(len, positions);
            if count(&bits.0) as usize > few {
                return Members::Many(bits);
            }
            return Members::Few(ones(&bits.0).collect());
        }
        positions.sort_unstable();
        positions.dedup();
        Members::Few(positions.into_boxed_slice())
    }

    /// `into |= self`.
    #[inline]
    pub fn or_into(&self, into: &mut [u64]) {
        match self {
            Members::Few(positions) => positions.iter().for_each(|position| set(into, *position)),
            Members::Many(bits) => or(into, &bits.0),
        }
    }

    /// `from &= !self`.
    #[inline]
    pub fn clear_from(&self, from: &mut [u64]) {
        match self {
            Members::Few(positions) => positions.iter().for_each(|position| clear(from, *position)),
            Members::Many(bits) => and_not(from, &bits.0),
        }
    }

    /// Whether `position` is one of them.
    pub fn has(&self, position: u32) -> bool {
        match self {
            Members::Few(positions) => positions.binary_search(&position).is_ok(),
            Members::Many(bits) => bits.has(position),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn members_are_a_set_whatever_their_shape(
            len in 1usize..2_000, raw in proptest::collection::vec(any::<u32>(), 0..200), background in any::<u64>(),
        ) {
            let positions: Vec<u32> = raw.iter().map(|raw| raw % len as u32).collect();
            let members = Members::new(len, positions.clone());
            let mut bits = Bits(vec![background; words_for(len)].into_boxed_slice());
            let mut expected: std::collections::BTreeSet<u32> = ones(&bits.0).collect();
            members.or_into(&mut bits.0);
            expected.extend(&positions);
            prop_assert_eq!(ones(&bits.0).collect::<Vec<_>>(), expected.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!(count(&bits.0) as usize, expected.len());
            members.clear_from(&mut bits.0);
            prop_assert!(ones(&bits.0).all(|bit| !positions.contains(&bit)));
            prop_assert!((0..len as u32).all(|bit| members.has(bit) == positions.contains(&bit)));
        }

        #[test]
        fn all_sets_exactly_its_length(len in 0usize..1_000) {
            prop_assert_eq!(count(&Bits::all(len).0) as usize, len);
        }
    }

    #[test]
    fn four_at_once_are_four_in_turn() {
        let rows: [Bits; 6] = std::array::from_fn(|index| Bits::of(200, [index as u32, 190 + index as u32]));
        let (mut once, mut turn) = (Bits::of(200, [100]), Bits::of(200, [100]));
        or_all(&mut once.0, rows.iter().map(|row| &row.0[..]));
        rows.iter().for_each(|row| or(&mut turn.0, &row.0));
        assert_eq!(once, turn);
    }

    #[test]
    fn slices_combine_word_by_word() {
        let mut bits = Bits::of(130, [0, 64, 129]);
        or(&mut bits.0, &Bits::of(130, [1, 129]).0);
        and_not(&mut bits.0, &Bits::of(130, [64]).0);
        and(&mut bits.0, &Bits::of(130, [0, 1]).0);
        put(&mut bits.0, 2, true);
        put(&mut bits.0, 0, false);
        assert_eq!(ones(&bits.0).collect::<Vec<_>>(), [1, 2]);
        assert!(!is_empty(&bits.0));
    }
}
