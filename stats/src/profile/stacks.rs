//! Stacks, each once, in little memory: 100,000 of 30 frames take 10 MB.
//!
//! ```text
//!   chunks   ┌ depth, cut ┬ number ┬ number ┬ … ┬ depth, cut ┬ …       entries of three bytes
//!   addresses   number → return address, each once
//! ```
//!
//! A stack is a position among all entries. None lies in two chunks, and chunks never move: growing costs no copy and no room for one.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// Entries of a chunk: 96 KiB, which is little to waste in a small profile.
const CHUNK_ENTRIES: usize = 1 << 15;
/// Frames of a stack at most: its depth is one byte.
const DEPTH_MAX: usize = u8::MAX as usize;
/// Addresses at most: what three bytes can tell apart.
const ADDRESSES_MAX: usize = 1 << 24;

/// A frame as a number of an address, or what stands in front of frames.
type Entry = [u8; 3];

const fn entry(number: u32) -> Entry {
    let [low, middle, high, _] = number.to_le_bytes();
    [low, middle, high]
}

pub(super) const fn number(entry: Entry) -> u32 {
    let [low, middle, high] = entry;
    u32::from_le_bytes([low, middle, high, 0])
}

/// Stacks of a profile.
#[derive(Clone, PartialEq, Debug, Default)]
pub(super) struct Stacks {
    chunks: Vec<Vec<Entry>>,
    addresses: Vec<usize>,
}

impl Stacks {
    /// The frames of a stack as numbers of addresses, innermost first, and whether it was cut off.
    fn entries(&self, stack: u32) -> (&[Entry], bool) {
        let (chunk, at) = (stack as usize / CHUNK_ENTRIES, stack as usize % CHUNK_ENTRIES);
        let Some([head, rest @ ..]) = self.chunks.get(chunk).and_then(|entries| entries.get(at..)) else { return (&[], false) };
        let [depth, is_cut, _] = *head;
        (&rest[..usize::from(depth)], is_cut != 0)
    }

    /// Numbers of addresses, innermost first.
    pub(super) fn numbers(&self, stack: u32) -> impl DoubleEndedIterator<Item = u32> + ExactSizeIterator + Clone + '_ {
        self.entries(stack).0.iter().map(|&entry| number(entry))
    }

    pub(super) fn is_cut(&self, stack: u32) -> bool {
        self.entries(stack).1
    }

    pub(super) fn addresses(&self) -> &[usize] {
        &self.addresses
    }

    /// Room for one more stack: its position. The caller pushes `entries` to the chunk that this leaves last.
    fn room(&mut self, entries: usize) -> u32 {
        if self.chunks.last().is_none_or(|chunk| chunk.len() + entries > CHUNK_ENTRIES) {
            self.chunks.push(Vec::with_capacity(CHUNK_ENTRIES));
        }
        let chunk = self.chunks.len() - 1;
        (chunk * CHUNK_ENTRIES + self.chunks[chunk].len()) as u32
    }
}

/// Keys are addresses and hashes of them, which nobody chooses to do harm: multiplying mixes them well enough, ten times as fast as the default.
#[derive(Clone, Copy, Default)]
pub(super) struct Mixer(u64);

/// The fractional part of the golden ratio: odd, with bits everywhere.
const MIX: u64 = 0x9e37_79b9_7f4a_7c15;

const fn mix(hash: u64, value: u64) -> u64 {
    let wide = (hash.rotate_left(5) ^ value) as u128 * MIX as u128;
    (wide as u64) ^ (wide >> 64) as u64
}

impl Hasher for Mixer {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }

    fn write_u32(&mut self, value: u32) {
        self.write_u64(u64::from(value));
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = mix(self.0, value);
    }

    fn write_usize(&mut self, value: usize) {
        self.write_u64(value as u64);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// A map for keys that are addresses, hashes or ids.
pub(super) type NumberMap<K, V> = HashMap<K, V, BuildHasherDefault<Mixer>>;

/// Puts stacks into [`Stacks`], each once. Its maps are needed only meanwhile.
#[derive(Debug, Default)]
pub(super) struct Interner {
    stacks: Stacks,
    by_hash: NumberMap<u64, u32>,
    by_address: NumberMap<usize, u32>,
}

impl Interner {
    /// Goes on from stacks that are there.
    pub(super) fn of(stacks: Stacks) -> Self {
        let by_address = stacks.addresses.iter().enumerate().map(|(number, &address)| (address, number as u32)).collect();
        // Stacks that come again are stored again: that costs some room and changes no profile.
        Self { stacks, by_hash: NumberMap::default(), by_address }
    }

    pub(super) fn into_stacks(self) -> Stacks {
        let mut stacks = self.stacks;
        stacks.addresses.shrink_to_fit();
        stacks
    }

    /// The position of a stack of return addresses, innermost first.
    pub(super) fn stack(&mut self, frames: impl ExactSizeIterator<Item = usize> + Clone, is_cut: bool) -> u32 {
        let is_cut = is_cut || frames.len() > DEPTH_MAX;
        let frames = frames.take(DEPTH_MAX);
        let hash = frames.clone().fold(u64::from(is_cut), |hash, address| mix(hash, address as u64));
        let known = self.by_hash.get(&hash).copied();
        if let Some(stack) = known.filter(|&stack| self.is(stack, frames.clone(), is_cut)) {
            return stack;
        }
        let stack = self.stacks.room(1 + frames.len());
        let Some(chunk) = self.stacks.chunks.len().checked_sub(1) else { return stack };
        let head = self.stacks.chunks[chunk].len();
        self.stacks.chunks[chunk].push([0, u8::from(is_cut), 0]);
        for address in frames {
            // Beyond 16 million addresses, which no program has.
            let Some(number) = self.address(address) else { break };
            self.stacks.chunks[chunk].push(entry(number));
        }
        self.stacks.chunks[chunk][head][0] = (self.stacks.chunks[chunk].len() - head - 1) as u8;
        // Two stacks of one hash: the later one is found from now on.
        self.by_hash.insert(hash, stack);
        stack
    }

    fn is(&self, stack: u32, frames: impl Iterator<Item = usize>, is_cut: bool) -> bool {
        let (entries, was_cut) = self.stacks.entries(stack);
        was_cut == is_cut && entries.iter().map(|&entry| self.stacks.addresses[number(entry) as usize]).eq(frames)
    }

    fn address(&mut self, address: usize) -> Option<u32> {
        if let Some(&number) = self.by_address.get(&address) {
            return Some(number);
        }
        let number = self.stacks.addresses.len();
        if number == ADDRESSES_MAX {
            return None;
        }
        self.stacks.addresses.push(address);
        self.by_address.insert(address, number as u32);
        Some(number as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(stacks: &Stacks, stack: u32) -> Vec<usize> {
        stacks.numbers(stack).map(|number| stacks.addresses()[number as usize]).collect()
    }

    #[test]
    fn stacks_are_stored_once_and_found_again() {
        let mut interner = Interner::default();
        let first = interner.stack([0x10, 0x20, 0x30].into_iter(), false);
        let second = interner.stack([0x40, 0x20, 0x30].into_iter(), false);
        assert_ne!(first, second);
        assert_eq!(interner.stack([0x10, 0x20, 0x30].into_iter(), false), first);
        let cut = interner.stack([0x10, 0x20, 0x30].into_iter(), true);
        assert_ne!(cut, first, "one goes on where nobody could follow");
        let empty = interner.stack([].into_iter(), false);
        let stacks = interner.into_stacks();
        assert_eq!(frames(&stacks, first), [0x10, 0x20, 0x30]);
        assert_eq!(frames(&stacks, second), [0x40, 0x20, 0x30]);
        assert_eq!(frames(&stacks, empty), [0usize; 0]);
        assert!(stacks.is_cut(cut));
        assert!(!stacks.is_cut(first));
        assert_eq!(stacks.addresses(), [0x10, 0x20, 0x30, 0x40]);
    }

    #[test]
    fn no_stack_lies_in_two_chunks() {
        let mut interner = Interner::default();
        let positions: Vec<u32> = (0..10_000_usize).map(|index| interner.stack((index..index + 64).step_by(2), false)).collect();
        let stacks = interner.into_stacks();
        assert!(stacks.chunks.len() > 9);
        for (index, &stack) in positions.iter().enumerate() {
            assert_eq!(frames(&stacks, stack), (index..index + 64).step_by(2).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_stack_that_is_too_deep_is_cut() {
        let mut interner = Interner::default();
        let stack = interner.stack(0..1000, false);
        let stacks = interner.into_stacks();
        assert_eq!(frames(&stacks, stack), (0..255).collect::<Vec<_>>());
        assert!(stacks.is_cut(stack));
    }

    #[test]
    fn going_on_from_stacks_that_are_there() {
        let mut interner = Interner::default();
        let first = interner.stack([1, 2, 3].into_iter(), false);
        let mut interner = Interner::of(interner.into_stacks());
        let second = interner.stack([3, 4].into_iter(), false);
        let stacks = interner.into_stacks();
        assert_eq!(frames(&stacks, first), [1, 2, 3]);
        assert_eq!(frames(&stacks, second), [3, 4]);
        assert_eq!(stacks.addresses(), [1, 2, 3, 4]);
    }
}
