//! jemalloc: how it shows that it is in use, and what its books say.
//!
//! Books (`stats`, which `tikv-jemalloc-ctl` reads) are no default of its crate, so no user has them who does not ask for them. They cost 3 to 4
//! instructions for each allocation and its free: 82.1 instead of 78.0 for 64 bytes, 90.4 instead of 87.3 for 1024, in a loop of C over a window of 64
//! blocks (callgrind, jemalloc 5.3.1, November 2026). So they are a subject of their own (`jemalloc-stats`), and the plain one, with which
//! Freestone is compared, goes without.

#[path = "../user_crate/patch/serves/jemalloc.rs"]
mod serves;

use std::ffi::{CStr, c_char};

/// It serves boxes, and keeps no books.
pub(crate) fn proof() -> Result<String, String> {
    if cfg!(feature = "jemalloc-stats") {
        return Err("it was built to keep books".to_owned());
    }
    serves_boxes()
}

/// It serves boxes, and does what it was asked to.
fn serves_boxes() -> Result<String, String> {
    serves::boxes()?;
    knobs_are_in_force(&std::env::var("_RJEM_MALLOC_CONF").unwrap_or_default())?;
    Ok(serves::version())
}

/// Compares what the environment asks for, `name:value,…`, with what jemalloc says that it does. It would only print a warning.
fn knobs_are_in_force(asked: &str) -> Result<(), String> {
    for knob in asked.split(',').filter(|knob| !knob.is_empty()) {
        let (name, value) = knob.split_once(':').ok_or_else(|| format!("the knob '{knob}' has no value"))?;
        let path = format!("opt.{name}\0");
        let is_so = match value {
            "true" | "false" => read::<bool>(&path).map(|its| its.to_string()),
            number if number.parse::<isize>().is_ok() => read::<isize>(&path).map(|its| its.to_string()),
            // SAFETY: texts of jemalloc's that end with a zero byte and are never freed.
            _ => read::<*const c_char>(&path).map(|its| unsafe { CStr::from_ptr(its) }.to_string_lossy().into_owned()),
        };
        match is_so {
            Ok(its) if its == value => {}
            Ok(its) => return Err(format!("{name} is {its} there, not {value} as was asked")),
            Err(error) => return Err(format!("it has no knob {name} with a value like {value} ({error})")),
        }
    }
    Ok(())
}

/// What jemalloc says under a name that ends with a zero byte. It compares the size of `T` with its own, so a wrong one is an error.
fn read<T: Copy>(name: &str) -> Result<T, String> {
    // SAFETY: `T` is one of the plain types that jemalloc has options of, and is only handed out when it wrote as many bytes.
    unsafe { tikv_jemalloc_ctl::raw::read(name.as_bytes()) }.map_err(|error| error.to_string())
}

/// For the build that keeps books.
#[cfg(feature = "jemalloc-stats")]
pub(crate) mod books {
    use freestone_bench::controls::{Controls, Note};
    use tikv_jemalloc_ctl::{epoch, stats};

    /// The same proof, and that there are books.
    pub(crate) fn proof() -> Result<String, String> {
        let version = super::serves_boxes()?;
        if allocated().is_some_and(|bytes| bytes > 0) {
            Ok(format!("{version} with stats"))
        } else {
            Err("it was built without books".to_owned())
        }
    }

    /// What the books offer.
    pub(crate) const CONTROLS: Controls =
        Controls { heap_in_use: Some(allocated), allocations: Some(allocations), books: Some(tell), ..Controls::NONE };

    /// Books are brought up to date only when somebody advances their epoch.
    fn allocated() -> Option<u64> {
        epoch::advance().ok()?;
        Some(stats::allocated::read().ok()? as u64)
    }

    /// Small and large ones of all arenas. What threads have in their caches to book is not in there yet: some hundreds each.
    fn allocations() -> u64 {
        // The books of all arenas together: `MALLCTL_ARENAS_ALL`.
        let count = |name| super::read::<u64>(name).unwrap_or(0);
        if epoch::advance().is_err() {
            return 0;
        }
        count("stats.arenas.4096.small.nmalloc\0") + count("stats.arenas.4096.large.nmalloc\0")
    }

    /// From what the program holds to what the system gave: blocks, their pages, all that is resident, and what is kept without memory.
    fn tell(note: &mut Note<'_>) {
        if epoch::advance().is_err() {
            return;
        }
        let figures = [
            ("jemalloc_allocated_bytes", stats::allocated::read()),
            ("jemalloc_active_bytes", stats::active::read()),
            ("jemalloc_resident_bytes", stats::resident::read()),
            ("jemalloc_retained_bytes", stats::retained::read()),
        ];
        for (name, figure) in figures {
            if let Ok(bytes) = figure {
                note(name, bytes as u64);
            }
        }
    }
}
