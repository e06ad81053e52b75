//! The report at exit: what is still there, and where it came from.

use std::fmt::Write as _;
use std::io::Write as _;
use std::panic::catch_unwind;
use std::sync::Once;

use bytesize::ByteSize;
use freestone::profile::{self, Estimate};

use crate::frames::Names;
use crate::init::environment;
use crate::profile::sites::{self, Sites, sum};
use crate::tag;

/// So many call sites are listed.
const SITES_LISTED: usize = 20;
/// So many frames of each.
const FRAMES_LISTED: usize = 10;

/// What the variable asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Wish {
    Nothing,
    Report,
    /// Nobody knows.
    Unknown,
}

fn parse(value: &str) -> Wish {
    match value.trim() {
        "1" => Wish::Report,
        "" | "0" => Wish::Nothing,
        _ => Wish::Unknown,
    }
}

/// Has a report written at exit, if `FREESTONE_LEAK_REPORT` says so.
pub(crate) fn start_from_environment() {
    let Some(value) = environment("FREESTONE_LEAK_REPORT") else { return };
    match parse(&value.to_string_lossy()) {
        Wish::Nothing => {}
        Wish::Report => {
            static ONCE: Once = Once::new();
            ONCE.call_once(|| {
                // SAFETY: a function that may be called at any time. If there is no room for it there is no report.
                unsafe { libc::atexit(at_exit) };
            });
        }
        Wish::Unknown => {
            let value: String = value.to_string_lossy().chars().filter(|letter| !letter.is_control()).take(64).collect();
            let _ = writeln!(
                std::io::stderr(),
                "freestone: FREESTONE_LEAK_REPORT={value} is not understood; 1 asks for a report at exit"
            );
        }
    }
}

extern "C" fn at_exit() {
    // Below us is the C library, through which nothing may unwind.
    let _ = catch_unwind(|| {
        profile::without_samples(|| {
            let text = text(&sites::sites());
            // Who has closed standard error does not want to know.
            let _ = std::io::stderr().write_all(text.as_bytes());
        });
    });
}

/// What is live, by call site, the most first.
fn text(sites: &Sites) -> String {
    let (mut text, mut names) = (String::new(), Names::new());
    if sites.summary.interval == 0 && sites.sites.is_empty() {
        text.push_str("freestone: no report of leaks, as sampling is off\n");
        return text;
    }
    let mut live: Vec<(Estimate, usize)> = Vec::new();
    let mut places = std::collections::HashMap::new();
    for (number, site) in sites.sites.iter().enumerate().filter(|(_, site)| site.live.samples > 0) {
        let place = *places.entry((site.stack_key, site.tag)).or_insert_with(|| {
            live.push((Estimate::default(), number));
            live.len() - 1
        });
        live[place].0 = sum(live[place].0, site.live);
    }
    live.sort_by(|a, b| b.0.bytes.total_cmp(&a.0.bytes));
    let all = live.iter().fold(Estimate::default(), |all, (live, _)| sum(all, *live));
    let bytes = |bytes: f64| ByteSize(bytes.max(0.0) as u64);
    let _ = writeln!(
        text,
        "freestone: at exit {} ± {} are live, by {} samples (one every {}) at {} call sites",
        bytes(all.bytes),
        bytes(all.bytes_variance.sqrt()),
        all.samples,
        ByteSize(sites.summary.interval as u64),
        live.len()
    );
    for (place, (live, number)) in live.iter().take(SITES_LISTED).enumerate() {
        let site = &sites.sites[*number];
        let _ = write!(
            text,
            "{:>3}. {} ± {} in {:.0} blocks",
            place + 1,
            bytes(live.bytes),
            bytes(live.bytes_variance.sqrt()),
            live.objects
        );
        if let Some(tag) = tag::name(site.tag) {
            let _ = write!(text, ", tag {tag}");
        }
        let lived = sites.at_ns.saturating_sub(site.first_ns) as f64 / 1e9;
        let _ = writeln!(text, ", the first {lived:.1} s ago");
        text.push_str(&names.lines(sites.frames(site), FRAMES_LISTED, 4));
    }
    if live.len() > SITES_LISTED {
        let rest: f64 = live[SITES_LISTED..].iter().map(|(live, _)| live.bytes).sum();
        let _ = writeln!(text, "  and {} call sites more with {}", live.len() - SITES_LISTED, bytes(rest));
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use freestone::profile::ProfileSummary;

    use super::*;
    use crate::profile::SiteUse;

    #[test]
    fn one_turns_it_on_and_nonsense_is_told() {
        assert_eq!(["1", " 1 ", "0", "", "yes", "2"].map(parse), {
            use Wish::{Nothing, Report, Unknown};
            [Report, Report, Nothing, Nothing, Unknown, Unknown]
        });
    }

    #[test]
    fn the_report_is_bounded_and_ranked() {
        let mut summary = ProfileSummary::default();
        summary.interval = 1 << 19;
        let mut all = Sites::new(10_000_000_000, &summary);
        let mut known = HashMap::new();
        for id in 0..50_u64 {
            let mut site = SiteUse { id, ..SiteUse::default() };
            (site.live.samples, site.live.bytes, site.live.objects) = (1, (id * 1024) as f64, 1.0);
            all.add_with(&site, &vec![1 + id as usize; 30], &mut known);
        }
        let text = text(&all);
        assert!(
            text.starts_with("freestone: at exit 1.2 MiB ± 0 B are live, by 50 samples (one every 512.0 KiB) at 50 call sites\n"),
            "{text}"
        );
        assert!(text.contains("\n  1. 49.0 KiB ± 0 B in 1 blocks, the first 10.0 s ago\n"), "{text}");
        assert!(text.ends_with("  and 30 call sites more with 435.0 KiB\n"), "{text}");
        assert!(text.lines().count() <= 2 + SITES_LISTED * (FRAMES_LISTED + 2));
    }
}
