//! Profiles as they are written and sent: taken, with columns that only grow since the start or since the last time, with names, as pprof.

use std::collections::HashMap;
use std::time::Duration;

use super::{Counting, Names};
use crate::names::{Mapping, Symbols, mappings};
use crate::profile::{self, Context, Frame, Kind, Profile, VALUES_MAX};

/// Addresses whose names are remembered from one profile to the next. A program that comes by more has them read again.
const NAMED_MAX: usize = 1 << 15;

/// Takes profiles of some kinds, one after the other.
#[derive(Debug)]
pub(super) struct Maker {
    counting: Counting,
    kinds: Vec<(Kind, Earlier)>,
    names: Option<Named>,
}

/// What was there the last time.
#[derive(Debug, Default)]
struct Earlier {
    /// Each row as it was, by its number.
    rows: HashMap<u64, Whole>,
    totals: [Option<i64>; VALUES_MAX],
    /// When that was, on the clock of snapshots, of which 0 is before the process.
    at_ns: u64,
}

/// A row before anything was subtracted.
#[derive(Clone, Copy, Debug, Default)]
struct Whole {
    samples: u64,
    values: [f64; VALUES_MAX],
    variances: [f64; VALUES_MAX],
}

impl Maker {
    pub(super) fn new(kinds: &[Kind], counting: Counting, names: Names) -> Self {
        Self {
            counting,
            kinds: kinds.iter().map(|&kind| (kind, Earlier::default())).collect(),
            names: (names == Names::Functions).then(Named::default),
        }
    }

    /// A profile of each kind, as pprof.
    pub(super) fn make(&mut self, mut each: impl FnMut(&Profile, Vec<u8>)) {
        let mappings = mappings();
        for (kind, earlier) in &mut self.kinds {
            let mut profile = profile::take(*kind);
            if self.counting == Counting::SinceLast {
                let now = freestone::snapshot();
                earlier.subtract_from(&mut profile, now.at_ns, now.age_ns);
            }
            let bytes = encode(&profile, &mappings, self.names.as_mut());
            each(&profile, bytes);
        }
    }
}

/// As pprof, gzipped.
fn encode(profile: &Profile, mappings: &[Mapping], names: Option<&mut Named>) -> Vec<u8> {
    let tags = |id| crate::tag::name(id).map(str::to_owned);
    let mut context = Context { namer: None, mappings, tags: Some(&tags) };
    let Some(names) = names else { return profile.pprof(&mut context) };
    names.are_of(mappings);
    // Symbols are read when there is something to name, and not kept: that is memory of the size of the program's.
    let mut symbols = None;
    let mut namer = |address: usize| names.of(address, &mut symbols);
    context.namer = Some(&mut namer);
    profile.pprof(&mut context)
}

/// Names that were found before.
#[derive(Debug, Default)]
struct Named {
    functions: HashMap<usize, Option<String>>,
    /// What was mapped at the time. Where something else is, other things lie at the same addresses.
    mappings: Vec<Mapping>,
}

impl Named {
    fn are_of(&mut self, mappings: &[Mapping]) {
        if self.mappings != mappings || self.functions.len() > NAMED_MAX {
            mappings.clone_into(&mut self.mappings);
            self.functions = HashMap::new();
        }
    }

    fn of(&mut self, address: usize, symbols: &mut Option<Symbols>) -> Vec<Frame> {
        let read = || {
            let name = symbols.get_or_insert_with(Symbols::new).function(address as u64)?;
            // A binary may say anything; a name is to stand in one line.
            Some(name.chars().filter(|letter| !letter.is_control()).collect())
        };
        let function = self.functions.entry(address).or_insert_with(read).clone();
        function.map(|function| Frame { function, ..Frame::default() }).into_iter().collect()
    }
}

impl Earlier {
    /// Leaves in columns that only grow what is new, and remembers the whole for the next time. What is in use stays as it is.
    ///
    /// Of the errors, too: a sample that was there before cancels out, so the variance of what is new is the difference of the variances.
    fn subtract_from(&mut self, profile: &mut Profile, at_ns: u64, age_ns: u64) {
        let kind = profile.kind;
        let columns = kind.value_types().len();
        if !(0..columns).any(|value| kind.is_cumulative(value)) {
            return;
        }
        let grows = |value: &usize| kind.is_cumulative(*value);
        let mut rows = HashMap::with_capacity(profile.rows.len());
        for row in &mut profile.rows {
            let variances = row.errors.map(|error| error * error);
            let whole = Whole { samples: row.samples, values: row.values, variances };
            let before = self.rows.get(&row.id).copied().unwrap_or_default();
            row.samples = row.samples.saturating_sub(before.samples);
            for value in (0..columns).filter(grows) {
                row.values[value] = (whole.values[value] - before.values[value]).max(0.0);
                row.errors[value] = (variances[value] - before.variances[value]).max(0.0).sqrt();
            }
            rows.insert(row.id, whole);
        }
        profile.rows.retain(|row| row.values[..columns].iter().any(|&value| value != 0.0));
        let totals = profile.exact.totals;
        for value in (0..columns).filter(grows) {
            let before = if self.at_ns == 0 { Some(0) } else { self.totals[value] };
            profile.exact.totals[value] = totals[value].zip(before).map(|(now, before)| now - before);
        }
        let since_ns = if self.at_ns == 0 { age_ns } else { at_ns.saturating_sub(self.at_ns) };
        profile.duration = Some(Duration::from_nanos(since_ns));
        *self = Self { rows, totals, at_ns };
    }
}

#[cfg(test)]
mod tests {
    // Sums and differences of small whole numbers are exact.
    #![allow(clippy::float_cmp)]

    use super::*;
    use crate::profile::{Builder, Row};

    fn profile(kind: Kind, rows: &[(u64, [f64; VALUES_MAX], [f64; VALUES_MAX])]) -> Profile {
        let mut builder = Builder::new(kind);
        for &(id, values, errors) in rows {
            let mut row = Row::default();
            (row.id, row.values, row.errors) = (id, values, errors);
            builder.push(row, &[0x1000 + id as usize]);
        }
        builder.finish()
    }

    #[test]
    fn what_only_grows_is_since_the_last_time_and_what_is_in_use_is_as_it_is() {
        let mut earlier = Earlier::default();
        let mut first = profile(Kind::Heap, &[(1, [10.0, 1000.0, 4.0, 400.0], [3.0; 4]), (2, [1.0, 64.0, 0.0, 0.0], [1.0; 4])]);
        first.exact.totals = [Some(11), None, Some(5), Some(401)];
        earlier.subtract_from(&mut first, 7_000, 5_000);
        assert_eq!(first.exact.totals, [Some(11), None, Some(5), Some(401)]);
        assert_eq!(first.rows[0].values, [10.0, 1000.0, 4.0, 400.0], "the first time, since the start");
        assert_eq!(first.duration, Some(Duration::from_micros(5)));

        let mut second = profile(
            Kind::Heap,
            &[
                (1, [15.0, 1500.0, 3.0, 300.0], [5.0; 4]),
                (2, [1.0, 64.0, 0.0, 0.0], [1.0; 4]),
                (3, [2.0, 20.0, 2.0, 20.0], [1.0; 4]),
            ],
        );
        second.exact.totals = [Some(19), Some(7), Some(6), Some(402)];
        earlier.subtract_from(&mut second, 10_000, 8_000);
        assert_eq!(second.exact.totals, [Some(8), None, Some(6), Some(402)]);
        assert_eq!(second.duration, Some(Duration::from_micros(3)));
        assert_eq!(second.rows.len(), 2, "who did nothing since and has nothing is left out");
        assert_eq!(second.rows[0].values, [5.0, 500.0, 3.0, 300.0]);
        assert_eq!(second.rows[0].errors, [4.0, 4.0, 5.0, 5.0], "5² − 3² = 4², and what is in use has its own");
        assert_eq!(second.rows[1].values, [2.0, 20.0, 2.0, 20.0], "who is new has all of it");
    }

    #[test]
    fn who_was_forgotten_and_comes_again_has_nothing_less_than_nothing() {
        let mut earlier = Earlier::default();
        earlier.subtract_from(&mut profile(Kind::Contention, &[(1, [9.0, 900.0, 0.0, 0.0], [0.0; 4])]), 1, 1);
        let mut later = profile(Kind::Contention, &[(1, [2.0, 950.0, 0.0, 0.0], [0.0; 4])]);
        earlier.subtract_from(&mut later, 2, 2);
        assert_eq!(later.rows[0].values[..2], [0.0, 50.0]);
    }

    #[test]
    fn peaks_do_not_grow() {
        let mut earlier = Earlier::default();
        for _ in 0..2 {
            let mut peak = profile(Kind::Peak, &[(1, [3.0, 300.0, 0.0, 0.0], [1.0; 4])]);
            earlier.subtract_from(&mut peak, 7, 7);
            assert_eq!(peak.rows[0].values[..2], [3.0, 300.0]);
            assert_eq!(peak.duration, None);
        }
    }
}
