//! Frames for people: an address as a name where somebody knows it, else as the file it lies in and where.

use std::ffi::CStr;
use std::fmt::Write as _;
use std::mem::MaybeUninit;

/// Knows what is at return addresses: functions with the feature `names`, else `program+0x1234`, which tools for debugging understand. For one report: it keeps
/// what it read of files until it is dropped.
#[derive(Debug, Default)]
pub(crate) struct Names {
    #[cfg(feature = "names")]
    symbols: Option<crate::names::Symbols>,
}

impl Names {
    /// Nothing is read before somebody asks.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// What is at a return address.
    pub(crate) fn name(&mut self, address: usize) -> String {
        self.function(address).unwrap_or_else(|| place(address))
    }

    #[cfg(feature = "names")]
    fn function(&mut self, address: usize) -> Option<String> {
        let symbols = self.symbols.get_or_insert_with(crate::names::Symbols::new);
        symbols.function(address.checked_sub(1)? as u64).map(str::to_owned)
    }

    #[cfg(not(feature = "names"))]
    #[allow(clippy::unused_self, clippy::unnecessary_wraps)]
    fn function(&mut self, _: usize) -> Option<String> {
        None
    }

    /// A stack, one frame a line, so far from the left.
    pub(crate) fn lines(&mut self, frames: &[usize], most: usize, indent: usize) -> String {
        let mut text = String::new();
        for &frame in frames.iter().take(most) {
            let _ = writeln!(text, "{:indent$}  {}", "", self.name(frame));
        }
        if frames.len() > most {
            let _ = writeln!(text, "{:indent$}  … and {} callers", "", frames.len() - most);
        }
        text
    }
}

/// The file, and how far behind its beginning.
fn place(address: usize) -> String {
    let mut info = MaybeUninit::<libc::Dl_info>::zeroed();
    // The call, not what comes after it: that may belong to another function.
    let call = address.wrapping_sub(1);
    // SAFETY: looks an address up, whatever it is, and writes to `info`.
    if unsafe { libc::dladdr(call as *const libc::c_void, info.as_mut_ptr()) } == 0 {
        return format!("{address:#x}");
    }
    // SAFETY: zeros are valid, and the call has written what it found.
    let info = unsafe { info.assume_init() };
    let offset = call.wrapping_sub(info.dli_fbase.addr());
    if info.dli_fname.is_null() {
        return format!("{address:#x}");
    }
    // SAFETY: the loader's name of a file that is loaded, which ends with a zero.
    let path = unsafe { CStr::from_ptr(info.dli_fname) }.to_string_lossy();
    let file = path.rsplit('/').next().filter(|file| !file.is_empty()).unwrap_or("?");
    format!("{file}+{offset:#x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_a_name_of_some_kind() {
        let mut names = Names::new();
        assert_eq!(names.name(0x10), "0x10");
        let here = place as *const () as usize + 1;
        let text = names.name(here);
        assert!(!text.is_empty() && !text.starts_with("0x"), "{text}");
        let many = names.lines(&[here; 20], 3, 2);
        assert_eq!(many.lines().count(), 4, "{many}");
        assert!(many.ends_with("… and 17 callers\n"), "{many}");
    }
}
