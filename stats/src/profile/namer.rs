//! What addresses and tags are called, and in which files code lies: handed to whoever writes a profile for people.

use std::fmt;

use crate::names::Mapping;

/// A function at an address.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Frame {
    /// Its name, as people write it: `tower::Tower::raise`.
    pub function: String,
    /// The file it was written in.
    pub file: Option<String>,
    /// The line of that file.
    pub line: Option<u32>,
}

/// Who knows what functions are called.
///
/// A closure will do:
///
/// ```
/// use freestone_stats::profile::{Frame, Namer};
///
/// fn first(namer: &mut dyn Namer) -> String {
///     namer.name(0x1234)[0].function.clone()
/// }
///
/// let mut numbers = |address: usize| vec![Frame { function: format!("function at {address:#x}"), ..Frame::default() }];
/// assert_eq!(first(&mut numbers), "function at 0x1234");
/// ```
pub trait Namer {
    /// The functions that an instruction belongs to, the innermost first: more than one where calls were inlined, none where nothing is known.
    ///
    /// `address` is of the call, not of what comes after it: for a frame of a stack, its return address less one.
    fn name(&mut self, address: usize) -> Vec<Frame>;
}

impl<F: FnMut(usize) -> Vec<Frame>> Namer for F {
    fn name(&mut self, address: usize) -> Vec<Frame> {
        self(address)
    }
}

/// All that is to be known besides numbers. The default knows nothing: profiles are then of bare addresses.
#[derive(Default)]
pub struct Context<'a> {
    /// Functions at addresses.
    pub namer: Option<&'a mut dyn Namer>,
    /// Files with code, the program itself first.
    pub mappings: &'a [Mapping],
    /// What tags are called; those without a name are shown as numbers.
    pub tags: Option<&'a dyn Fn(u32) -> Option<String>>,
}

impl fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("has_namer", &self.namer.is_some())
            .field("mappings", &self.mappings)
            .field("has_tags", &self.tags.is_some())
            .finish()
    }
}

impl Context<'_> {
    /// What a tag is called.
    #[must_use]
    pub fn tag(&self, tag: u32) -> String {
        self.tags.and_then(|name| name(tag)).unwrap_or_else(|| tag.to_string())
    }

    /// The mapping that an address lies in.
    #[must_use]
    pub fn mapping(&self, address: usize) -> Option<&Mapping> {
        self.mapping_index(address).map(|index| &self.mappings[index])
    }

    pub(super) fn mapping_index(&self, address: usize) -> Option<usize> {
        self.mappings.iter().position(|mapping| (mapping.start..mapping.end).contains(&(address as u64)))
    }

    /// The functions at the address of a call, innermost first; where nobody knows, one that is called by its place in its file,
    /// `libc.so.6+0x1d0a4`, or by its address.
    #[must_use]
    pub fn name(&mut self, address: usize) -> Vec<Frame> {
        let mut named = self.known(address);
        if named.is_empty() {
            named.push(Frame { function: self.place(address), ..Frame::default() });
        }
        named
    }

    /// The functions at the address of a call, innermost first; none where nobody knows.
    pub(super) fn known(&mut self, address: usize) -> Vec<Frame> {
        let mut named = self.namer.as_mut().map(|namer| namer.name(address)).unwrap_or_default();
        named.retain(|frame| !frame.function.is_empty());
        named
    }

    /// Where an address is: `libc.so.6+0x1d0a4`, as an offset into the file; or just the address.
    #[must_use]
    pub fn place(&self, address: usize) -> String {
        match self.mapping(address) {
            Some(mapping) => {
                let offset = address as u64 - mapping.start + mapping.file_offset;
                let name = mapping.path.file_name().unwrap_or(mapping.path.as_os_str());
                format!("{}+{offset:#x}", name.to_string_lossy())
            }
            None => format!("{address:#x}"),
        }
    }
}
