//! A program or a library as somebody reads it who has time: with the lines of its functions, and with what was inlined into them.

use std::path::{Path, PathBuf};

use addr2line::Loader;
use anyhow::Result;
use freestone_stats::names::{Binary, demangle};

/// A function at an address, and where in its text that is.
pub(super) struct Frame {
    pub(super) function: String,
    /// As the linker calls it.
    pub(super) system_name: String,
    pub(super) file: String,
    pub(super) line: u32,
    pub(super) column: u32,
}

/// A file with code, and what it says about lines.
pub(super) struct Code {
    pub(super) path: PathBuf,
    names: Binary,
    /// From DWARF, in the file itself or in its debug file; none where there is none.
    lines: Option<Loader>,
}

impl Code {
    /// Opens a file, and what belongs to it in these folders.
    pub(super) fn open(path: &Path, debug_folders: &[PathBuf]) -> Result<Self> {
        let names = Binary::open(path, debug_folders)?;
        let lines = lines_of(path).or_else(|| lines_of(&names.find_debug_file(debug_folders)?));
        Ok(Self { path: path.to_owned(), names, lines })
    }

    pub(super) fn build_id(&self) -> Option<&str> {
        self.names.build_id()
    }

    /// The functions at a place in the file, the innermost first: the last is the one that the others were inlined into. None: nobody knows.
    pub(super) fn frames(&mut self, file_offset: u64) -> Vec<Frame> {
        let Some(address) = self.names.address_of(file_offset) else { return Vec::new() };
        let mut frames = self.lines.as_ref().map_or(Vec::new(), |lines| from_dwarf(lines, address));
        // What was written in assembler has lines, perhaps, but no functions.
        if frames.last().is_none_or(|frame| frame.function.is_empty())
            && let Some(function) = self.names.function(address)
        {
            let known = frames.pop();
            let (file, line, column) = known.map_or_else(Default::default, |its| (its.file, its.line, its.column));
            frames.push(Frame { system_name: function.clone(), function, file, line, column });
        }
        frames.retain(|frame| !frame.function.is_empty());
        frames
    }
}

fn lines_of(path: &Path) -> Option<Loader> {
    // Whatever is wrong with it, there are names without lines.
    let lines = Loader::new(path).ok()?;
    lines.get_section_range(b".debug_info").is_some().then_some(lines)
}

/// What DWARF says, as far as it is not damaged.
fn from_dwarf(lines: &Loader, address: u64) -> Vec<Frame> {
    let mut frames = Vec::new();
    let Ok(mut found) = lines.find_frames(address) else { return frames };
    while let Ok(Some(frame)) = found.next() {
        let system_name = frame.function.as_ref().and_then(|its| its.raw_name().ok()).map_or_else(String::new, Into::into);
        let location = frame.location.as_ref();
        frames.push(Frame {
            function: demangle(&system_name),
            system_name,
            file: location.and_then(|its| its.file).unwrap_or_default().to_owned(),
            line: location.and_then(|its| its.line).unwrap_or_default(),
            column: location.and_then(|its| its.column).unwrap_or_default(),
        });
    }
    frames
}
