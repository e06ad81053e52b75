//! Whatever the environment asks for, started by one line.

/// Starts what the environment asks for. To be called once, early in `main`; calling it again does nothing.
///
/// `FREESTONE_HTTP=127.0.0.1:6060` serves everything there, for as long as the process runs, where `freestone-stats` has the feature `http`.
///
/// What cannot be started is one line on standard error, and the program goes on. The environment is ignored in processes that run with
/// somebody else's rights.
///
/// ```
/// freestone_stats::init();
/// ```
pub fn init() {
    #[cfg(feature = "recorder")]
    crate::recorder::start_from_environment();
    crate::history::start();
    #[cfg(feature = "http")]
    crate::http::start_from_environment();
}
