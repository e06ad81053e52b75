//! Whatever the environment asks for, started by one line.

#[cfg(any(feature = "recorder", feature = "http"))]
use std::ffi::OsString;
use std::sync::Once;

/// Starts what the environment asks for, and the [`history`](crate::history) that rates and verdicts are made from. To be called once, early in
/// `main`; calling it again does nothing.
///
/// | variable | starts | needs the feature |
/// |---|---|---|
/// | `FREESTONE_RECORDER=PATH` | a flight recorder that writes there; `%p` is the process's number | `recorder` |
/// | `FREESTONE_HTTP=127.0.0.1:6060` | a server for everything there is to see | `http` |
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
        crate::history::start();
        #[cfg(feature = "http")]
        crate::http::start_from_environment();
    });
}

/// What a variable says, if it says anything and the process has nobody else's rights.
#[cfg(any(feature = "recorder", feature = "http"))]
pub(crate) fn environment(name: &str) -> Option<OsString> {
    // SAFETY: reads a table that the kernel left on the stack.
    let is_secure = unsafe { libc::getauxval(libc::AT_SECURE) } != 0;
    std::env::var_os(name).filter(|value| !value.is_empty() && !is_secure)
}
