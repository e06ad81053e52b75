//! Whatever the environment asks for, started by one line.

/// Starts what the environment asks for. To be called once, early in `main`; calling it again does nothing.
///
/// ```
/// freestone_stats::init();
/// ```
pub fn init() {
    #[cfg(feature = "recorder")]
    crate::recorder::start_from_environment();
    crate::history::start();
}
