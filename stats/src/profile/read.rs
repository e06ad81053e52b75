//! What the allocator knows of call sites, as rows.

use std::time::{Duration, SystemTime};

use freestone::profile::{Estimate, Site, Stall};

use super::builder::Detail;
use super::{Builder, Exact, Kind, Profile, Row, StallDetail, VALUES_MAX};

/// A profile of this moment. Nobody is stopped; what it allocates is not in it.
#[must_use]
pub fn take(kind: Kind) -> Profile {
    freestone::profile::without_samples(|| {
        if kind == Kind::Fragmentation {
            freestone::profile::measure_pinned();
        }
        let summary = freestone::profile::summary();
        let (taken, exact) = (SystemTime::now(), exact(kind));
        let mut builder = Builder::with_rows(kind, if kind == Kind::Contention { 0 } else { summary.sites });
        if kind == Kind::Contention {
            freestone::profile::each_stall(|stall| push_stall(&mut builder, stall));
        } else {
            freestone::profile::each_site(|site| push(&mut builder, kind, site));
        }
        let mut profile = builder.finish();
        (profile.taken, profile.summary, profile.exact) = (taken, summary, exact);
        profile
    })
}

/// What the whole heap counted of each column.
fn exact(kind: Kind) -> Exact {
    let heap = freestone::snapshot();
    let totals = match kind {
        Kind::Heap | Kind::Allocs => {
            [heap.allocations, heap.allocated_bytes, heap.live_blocks(), heap.bytes.live as u64].map(Some)
        }
        Kind::Lifetimes => [Some(heap.frees), Some(heap.freed_bytes), None, None],
        Kind::Fragmentation => [Some(heap.bytes.holes as u64), Some(heap.bytes.live as u64), None, None],
        // Nobody notes what lived when it was most, and stalls are no samples.
        Kind::Peak | Kind::Contention => [None; VALUES_MAX],
    };
    Exact { totals: totals.map(|total| total.map(|total| total as i64)) }
}

/// A site as a row, unless it has nothing to say.
fn push(builder: &mut Builder, kind: Kind, site: &Site) {
    let Some((samples, values, errors)) = columns(kind, site) else { return };
    let row = Row { id: site.id, tag: site.tag, block_bytes: site.block_bytes, samples, values, errors, ..Row::default() };
    let detail = if kind == Kind::Lifetimes { Detail::Lifetimes(site.lifetimes) } else { Detail::None };
    builder.push_row(row, site.stack.frames(), site.stack.is_cut, detail);
}

type Columns = [f64; VALUES_MAX];

/// What of a site is in the columns of a profile: samples, values and their standard errors.
fn columns(kind: Kind, site: &Site) -> Option<(u64, Columns, Columns)> {
    let error =
        |estimate: &Estimate| [estimate.objects_variance, estimate.bytes_variance].map(|variance| variance.max(0.0).sqrt());
    let (samples, values, errors) = match kind {
        Kind::Heap | Kind::Allocs => {
            let (all, live) = (&site.allocated, &site.live);
            let ([objects, bytes], [live_objects, live_bytes]) = (error(all), error(live));
            (all.samples, [all.objects, all.bytes, live.objects, live.bytes], [objects, bytes, live_objects, live_bytes])
        }
        Kind::Peak => {
            let [objects, bytes] = error(&site.peak);
            (site.peak.samples, [site.peak.objects, site.peak.bytes, 0.0, 0.0], [objects, bytes, 0.0, 0.0])
        }
        Kind::Lifetimes => {
            let (ended, temporary) = (&site.ended, &site.temporary);
            let ([objects, bytes], [temporary_objects, _]) = (error(ended), error(temporary));
            // As far off as the number of blocks is: how much their lives differ is not noted.
            let lifetime = site.lifetime_ns * share(objects, ended.objects);
            let values = [ended.objects, ended.bytes, temporary.objects, site.lifetime_ns];
            (ended.samples, values, [objects, bytes, temporary_objects, lifetime])
        }
        Kind::Fragmentation => {
            let [_, bytes] = error(&site.live);
            // What is pinned is shared among live blocks, so it is as far off as they are.
            let pinned = site.pinned_bytes * share(bytes, site.live.bytes);
            let samples = if site.pinned_bytes > 0.0 { site.live.samples } else { 0 };
            (samples, [site.pinned_bytes, site.live.bytes, 0.0, 0.0], [pinned, bytes, 0.0, 0.0])
        }
        Kind::Contention => return None,
    };
    (samples > 0).then_some((samples, values, errors))
}

/// An error, as a part of its value.
fn share(error: f64, value: f64) -> f64 {
    if value > 0.0 { error / value } else { 0.0 }
}

/// Stalls are all noted, so nothing of them is an estimate.
fn push_stall(builder: &mut Builder, stall: &Stall) {
    let values = [stall.count as f64, stall.total_ns as f64, 0.0, 0.0];
    let row = Row { id: stall.id, samples: stall.count, values, ..Row::default() };
    let detail = StallDetail { kind: stall.kind, longest: Duration::from_nanos(stall.max_ns) };
    builder.push_row(row, stall.stack.frames(), stall.stack.is_cut, Detail::Stall(detail));
}
