//! When a program that does something wrong with a pointer is stopped. Such a program says "done wrong", "went on" after a thousand operations more, and
//! "all back" when its blocks have come back to central.

use crate::Ending;

/// When it was stopped.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Stopped {
    /// By the wrong call itself.
    AtTheCall,
    /// Within a thousand operations.
    WithinAThousand,
    /// When the blocks came back to central.
    AtCentral,
    /// Not at all.
    Never,
}

impl Stopped {
    /// When the program that ended so was stopped.
    ///
    /// # Panics
    ///
    /// When it ended in another way.
    #[must_use]
    pub fn of(ending: &Ending) -> Self {
        match (ending.code, ending.out.as_str()) {
            (Some(0), "done wrong\nwent on\nall back\n") => Self::Never,
            (None, "") => Self::AtTheCall,
            (None, "done wrong\n") => Self::WithinAThousand,
            (None, "done wrong\nwent on\n") => Self::AtCentral,
            _ => panic!("unexpected ending: {ending:?}"),
        }
    }
}
