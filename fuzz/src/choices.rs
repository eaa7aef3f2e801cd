//! Decisions out of bytes.

/// Decisions, read out of bytes one after the other. When these are used up all that follow are the first choice, so that what is built by
/// them ends.
#[derive(Clone, Debug)]
pub struct Choices<'a> {
    left: &'a [u8],
}

impl<'a> Choices<'a> {
    /// What these bytes say.
    pub fn new(bytes: &'a [u8]) -> Self {
        Choices { left: bytes }
    }

    /// Whether all bytes are used up.
    pub fn is_over(&self) -> bool {
        self.left.is_empty()
    }

    /// The bytes that are left.
    pub fn rest(self) -> &'a [u8] {
        self.left
    }

    /// One byte.
    pub fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.left.split_first() else { return 0 };
        self.left = rest;
        *first
    }

    /// True in half of all cases.
    pub fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    /// Eight bytes as a number.
    pub fn number(&mut self) -> u64 {
        u64::from_le_bytes(std::array::from_fn(|_| self.byte()))
    }

    /// A number below `end`, 0 if there is none. Of large ends two bytes are used.
    pub fn below(&mut self, end: usize) -> usize {
        let drawn = match end {
            0..=256 => usize::from(self.byte()),
            _ => usize::from(u16::from_le_bytes([self.byte(), self.byte()])),
        };
        drawn.checked_rem(end).unwrap_or(0)
    }

    /// One of these.
    ///
    /// # Panics
    /// If there are none.
    pub fn pick<'i, T>(&mut self, items: &'i [T]) -> &'i T {
        &items[self.below(items.len())]
    }

    /// Does to bytes what disks, links and strangers do: flips bits, writes over, zeroes, cuts out, repeats, puts in, cuts short. At least
    /// once; what is done may leave them as they were.
    pub fn damage(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..=self.below(4) {
            let from = self.below(bytes.len() + 1);
            let until = (from + self.below(48)).min(bytes.len());
            match self.below(8) {
                0..=2 => {
                    let bit = self.below(8);
                    if let Some(byte) = bytes.get_mut(from) {
                        *byte ^= 1 << bit;
                    }
                }
                3 => bytes[from..until].iter_mut().for_each(|byte| *byte = self.byte()),
                4 => bytes[from..until].fill(0),
                5 => drop(bytes.drain(from..until)),
                6 => {
                    let again = bytes[from..until].to_vec();
                    let to = self.below(bytes.len() + 1);
                    bytes.splice(to..to, again);
                }
                _ => bytes.truncate(from),
            }
        }
    }
}
