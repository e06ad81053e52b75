//! Ctrl-C. The first time it ends the run that is in progress, and with that the session: what was measured is kept and shown. The second time it
//! ends the program at once.

use std::process::exit;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::thread;
use std::time::Duration;

use crate::Ending;

/// Did somebody press it? Relaxed will do: nothing else is handed over with it.
static ASKED: AtomicBool = AtomicBool::new(false);

/// The processes that are measured at this moment. Whoever waits for the end of one takes its number out before, so that nobody kills a stranger
/// who got the same one.
static RUNNING: Mutex<Vec<u32>> = Mutex::new(Vec::new());

fn in_progress() -> MutexGuard<'static, Vec<u32>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From now on.
pub(crate) fn watch() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if let Err(error) = ctrlc::set_handler(obey) {
            eprintln!("Ctrl-C will end this without a table: {error}");
        }
    });
}

/// Runs on a thread of its own, so anything may be done here.
fn obey() {
    let again = ASKED.swap(true, Ordering::Relaxed);
    in_progress().iter().copied().for_each(kill);
    if again {
        exit(i32::from(Ending::INTERRUPTED));
    }
    eprintln!("\nstopping; once more, and nothing is shown");
}

/// In a terminal it has got the signal itself, as all in the foreground have.
fn kill(process: u32) {
    // A launcher leads a group, to which its command belongs.
    for whom in [-(process as libc::pid_t), process as libc::pid_t] {
        // SAFETY: no memory is involved; the number belongs to a child that nobody has waited for.
        unsafe { libc::kill(whom, libc::SIGKILL) };
    }
}

/// Did somebody press it?
pub(crate) fn is_asked() -> bool {
    ASKED.load(Ordering::Relaxed)
}

/// The same, right after a process has failed: in a terminal it may hear of it before we do.
pub(crate) fn is_asked_by_now() -> bool {
    if !is_asked() {
        thread::sleep(Duration::from_millis(50));
    }
    is_asked()
}

/// This process is one to kill, until it is [`over`]. If that was asked for while it was started, then now.
pub(crate) fn running(process: u32) {
    in_progress().push(process);
    if is_asked() {
        kill(process);
    }
}

/// It ends by itself, or has ended.
pub(crate) fn over(process: u32) {
    in_progress().retain(|its| *its != process);
}
