//! Floor 0. What a user may choose, and how it is written in `FREESTONE=key:value,key:value`.
//!
//! Parsing is pure: the text is handed in, complaints are handed out one by one, nothing is allocated, and the environment is
//! read elsewhere.

/// When a magazine that changes sides within a thread is checked block by block.
///
/// What reaches central (another thread's supply, a thread's end, memory given back) is always checked in full.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Check {
    /// One exchange in 16: costs up to 7 % of a loop that does nothing but allocate and free, and little elsewhere. The default.
    Sampled,
    /// Every exchange: finds a double free within a thread's next few hundred operations; costs 1.3–1.5 × in tight loops.
    Exchange,
}

/// Whether new memory asks the kernel for 2 MiB pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum HugePages {
    /// Once the heap is large or growing in a burst. The default.
    Auto,
    /// Never: least memory, most page faults.
    Never,
    /// From the first step on: a heap costs at least 2 MiB.
    Always,
}

/// The options in force. Built by [`crate::Freestone`]'s builder methods, then overridden by the environment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Options {
    /// See [`Check`]. Key `check`, values `sampled` and `exchange`.
    pub check: Check,
    /// See [`HugePages`]. Key `huge_pages`, values `auto`, `never` and `always`.
    pub huge_pages: HugePages,
}

/// Something in the text that has no effect, to be reported on a line of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Complaint<'a> {
    /// No option has this key.
    UnknownKey(&'a [u8]),
    /// The option exists; this is not one of its values.
    BadValue(&'a [u8], &'a [u8]),
}

impl Options {
    /// What holds when nobody chooses.
    pub(crate) const DEFAULT: Self = Self { check: Check::Sampled, huge_pages: HugePages::Auto };

    /// Applies `text`, entry by entry from left to right, so that the last one wins. Empty entries are fine.
    pub(crate) fn apply<'a>(&mut self, text: &'a [u8], mut complain: impl FnMut(Complaint<'a>)) {
        for entry in text.split(|&byte| byte == b',') {
            let entry = entry.trim_ascii();
            if entry.is_empty() {
                continue;
            }
            let colon = entry.iter().position(|&byte| byte == b':').unwrap_or(entry.len());
            let key = entry[..colon].trim_ascii();
            let value = entry[colon..].strip_prefix(b":").unwrap_or(b"").trim_ascii();
            if let Err(complaint) = self.set(key, value) {
                complain(complaint);
            }
        }
    }

    fn set<'a>(&mut self, key: &'a [u8], value: &'a [u8]) -> Result<(), Complaint<'a>> {
        match (key, value) {
            (b"check", b"sampled") => self.check = Check::Sampled,
            (b"check", b"exchange") => self.check = Check::Exchange,
            (b"huge_pages", b"auto") => self.huge_pages = HugePages::Auto,
            (b"huge_pages", b"never") => self.huge_pages = HugePages::Never,
            (b"huge_pages", b"always") => self.huge_pages = HugePages::Always,
            (b"check" | b"huge_pages", _) => return Err(Complaint::BadValue(key, value)),
            _ => return Err(Complaint::UnknownKey(key)),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(text: &str) -> (Options, Vec<Complaint<'_>>) {
        let mut options = Options::DEFAULT;
        let mut complaints = Vec::new();
        options.apply(text.as_bytes(), |complaint| complaints.push(complaint));
        (options, complaints)
    }

    #[test]
    fn nothing_changes_nothing() {
        assert_eq!(applied(""), (Options::DEFAULT, vec![]));
        assert_eq!(applied(" , ,,"), (Options::DEFAULT, vec![]));
    }

    #[test]
    fn the_last_entry_wins_and_spaces_are_fine() {
        let (options, complaints) = applied(" check : exchange , huge_pages:never,huge_pages:always");
        assert_eq!(options, Options { check: Check::Exchange, huge_pages: HugePages::Always });
        assert_eq!(complaints, []);
    }

    #[test]
    fn what_is_not_understood_is_named_and_the_rest_holds() {
        let (options, complaints) = applied("chek:exchange,check:maybe,check,huge_pages:never,\u{fffd}");
        assert_eq!(options, Options { check: Check::Sampled, huge_pages: HugePages::Never });
        assert_eq!(
            complaints,
            [
                Complaint::UnknownKey(b"chek"),
                Complaint::BadValue(b"check", b"maybe"),
                Complaint::BadValue(b"check", b""),
                Complaint::UnknownKey("\u{fffd}".as_bytes()),
            ]
        );
    }

    #[test]
    fn no_bytes_at_all_can_harm() {
        let mut options = Options::DEFAULT;
        let mut state = 1_u64;
        for length in 0..2_000 {
            let mut text = vec![0_u8; length % 97];
            for byte in &mut text {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                *byte = b"check:exchange,huge_pages\0\xff"[(state >> 33) as usize % 27];
            }
            let mut entries = 0;
            options.apply(&text, |_| entries += 1);
            assert!(entries <= text.len());
        }
    }
}
