//! Whatever the environment asks for, started by one line.

use std::ffi::OsString;
use std::sync::Once;

/// Starts what the environment asks for, and the [`history`](crate::history) that rates and verdicts are made from. To be called once, early in
/// `main`; calling it again does nothing.
///
/// | variable | starts | needs the feature |
/// |---|---|---|
/// | `FREESTONE_RECORDER=PATH` | a flight recorder that writes there; `%p` is the process's number | `recorder` |
/// | `FREESTONE_HTTP=127.0.0.1:6060` | a server for everything there is to see | `http` |
/// | `FREESTONE_LEAK_REPORT=1` | a report at exit, on standard error: what is still there, and who took it | – |
/// | `FREESTONE_PROFILE_DIR=/path` | heap profiles into that directory: see the module `continuous` | `continuous` |
/// | `FREESTONE_PROFILE_PUSH=http://pyroscope:4040` | heap profiles to a server | `continuous` |
///
/// For the last two, `FREESTONE_PROFILE_EVERY=15s` says how often; for the last, `FREESTONE_PROFILE_LABELS=service_name=orders,region=eu` what they are
/// called there, `FREESTONE_PROFILE_TOKEN` and `FREESTONE_PROFILE_TENANT` who asks.
///
/// What cannot be started is one line on standard error, and the program goes on. The environment is ignored in processes that run with
/// somebody else's rights. What the heap itself reads from it (`FREESTONE`, `FREESTONE_MEMORY_LIMIT`) needs no call.
///
/// ```
/// freestone_stats::init();
/// ```
pub fn init() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        #[cfg(feature = "recorder")]
        crate::recorder::start_from_environment();
        crate::leaks::start_from_environment();
        crate::history::start();
        #[cfg(feature = "http")]
        crate::http::start_from_environment();
        #[cfg(feature = "continuous")]
        crate::continuous::start_from_environment();
    });
}

/// What a variable says, if it says anything and the process has nobody else's rights.
pub(crate) fn environment(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty() && !has_others_rights())
}

/// Does the process have more rights than whoever started it?
pub(crate) fn has_others_rights() -> bool {
    // SAFETY: reads a table that the kernel left on the stack.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}
