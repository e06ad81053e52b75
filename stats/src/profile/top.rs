//! The table: which functions hold the most, as `go tool pprof -top` shows it, with how far off it may be and what was counted exactly.

use std::collections::HashMap;
use std::fmt::{self, Write as _};

use super::labels::call_of;
use super::notes::human;
use super::{Context, Profile, ValueType};

/// Functions that a table shows, unless somebody says otherwise.
const LIMIT: usize = 40;
/// What is left of a line for the name.
const NAME_COLUMNS: usize = 42;

/// The functions of a profile, those with the most first. Its `Display` is a table of 100 columns.
///
/// ```text
/// heap, inuse_space: 5.0 MiB ± 2.1 MiB, exactly 5.0 MiB; 12 samples, one per 512 KiB
///      flat    flat%     sum%         ±       cum     cum%  function
///   3.0 MiB   60.00%   60.00%   977 KiB   3.0 MiB   60.00%  tower::raise
/// ```
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub struct Top {
    /// All of them.
    pub functions: Vec<TopFunction>,
    /// How many of them the table shows: 40 unless this is set.
    pub limit: usize,
    /// What it is about: `heap, inuse_space`.
    pub title: String,
    /// The column.
    pub value: ValueType,
    /// The sum of all rows; what percentages are of, unless some are negative: then it is the sum without signs.
    pub total: f64,
    /// The standard error of the sum.
    pub total_error: f64,
    /// What was counted exactly, where somebody counts it.
    pub exact: Option<i64>,
    /// Samples that it stands on.
    pub samples: u64,
    /// Bytes between two samples, on average.
    pub interval: usize,
    /// The sum without signs.
    whole: f64,
}

/// A function, and what is its own.
#[derive(Clone, PartialEq, Debug, Default)]
#[non_exhaustive]
pub struct TopFunction {
    /// What it is called.
    pub name: String,
    /// What it allocated itself.
    pub flat: f64,
    /// The standard error of that.
    pub flat_error: f64,
    /// What it allocated, and what it called allocated.
    pub cum: f64,
    /// The standard error of that.
    pub cum_error: f64,
}

impl Profile {
    /// The functions of a column, those with the most first. Of a column that the kind does not have, its usual one.
    #[must_use]
    pub fn top(&self, value: usize, context: &mut Context<'_>) -> Top {
        freestone::profile::without_samples(|| {
            let value = self.value_or_default(value);
            let of = self.kind.value_types()[value];
            let mut title = format!("{}, {}", self.kind.name(), of.name);
            if let Some(duration) = self.duration {
                let _ = write!(title, ", change in {:.1} s", duration.as_secs_f64());
            }
            Top {
                functions: functions(self, value, context),
                limit: LIMIT,
                title,
                value: of,
                total: self.total(value),
                total_error: self.total_error(value),
                exact: self.exact.totals[value],
                samples: self.samples(),
                interval: self.summary.interval,
                whole: self.rows.iter().map(|row| row.values[value].abs()).sum(),
            }
        })
    }
}

/// Functions, while rows are added up: errors are variances until the end.
struct Adding {
    functions: Vec<TopFunction>,
    by_name: HashMap<String, u32>,
}

impl Adding {
    fn number(&mut self, name: String) -> u32 {
        let next = self.functions.len() as u32;
        let number = *self.by_name.entry(name.clone()).or_insert(next);
        if number == next {
            self.functions.push(TopFunction { name, ..TopFunction::default() });
        }
        number
    }
}

fn functions(profile: &Profile, value: usize, context: &mut Context<'_>) -> Vec<TopFunction> {
    let mut adding = Adding { functions: Vec::new(), by_name: HashMap::new() };
    // Which functions each address stands for, innermost first: asked for once, where it is needed.
    let mut of_address: Vec<Option<Box<[u32]>>> = vec![None; profile.addresses().len()];
    // Functions of one stack: one that calls itself counts once.
    let mut seen: Vec<u32> = Vec::new();
    for row in &profile.rows {
        let (amount, variance) = (row.values[value], row.errors[value] * row.errors[value]);
        if amount == 0.0 && variance == 0.0 {
            continue;
        }
        seen.clear();
        for index in profile.frame_indices(row) {
            let numbers = of_address[index].get_or_insert_with(|| {
                let named = context.name(call_of(profile.addresses()[index]));
                named.into_iter().map(|frame| adding.number(frame.function)).collect()
            });
            seen.extend(numbers.iter());
        }
        let Some(&innermost) = seen.first() else { continue };
        let own = &mut adding.functions[innermost as usize];
        own.flat += amount;
        own.flat_error += variance;
        seen.sort_unstable();
        seen.dedup();
        for &number in &seen {
            let function = &mut adding.functions[number as usize];
            function.cum += amount;
            function.cum_error += variance;
        }
    }
    let mut functions = adding.functions;
    for function in &mut functions {
        function.flat_error = function.flat_error.sqrt();
        function.cum_error = function.cum_error.sqrt();
    }
    functions.sort_by(|a, b| {
        let key = |function: &TopFunction| (function.flat.abs(), function.cum.abs());
        let ((a_flat, a_cum), (b_flat, b_cum)) = (key(a), key(b));
        b_flat.total_cmp(&a_flat).then(b_cum.total_cmp(&a_cum)).then_with(|| a.name.cmp(&b.name))
    });
    functions
}

impl fmt::Display for Top {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = self.value.unit;
        write!(f, "{}: {} ± {}", self.title, human(self.total, unit), human(self.total_error, unit))?;
        if let Some(exact) = self.exact {
            write!(f, ", exactly {}", human(exact as f64, unit))?;
        }
        write!(f, "; {} samples", self.samples)?;
        if self.interval > 1 {
            write!(f, ", one per {}", human(self.interval as f64, "bytes"))?;
        }
        writeln!(f)?;
        writeln!(f, "{:>9} {:>8} {:>8} {:>9} {:>9} {:>8}  function", "flat", "flat%", "sum%", "±", "cum", "cum%")?;
        let percent = |part: f64| if self.whole > 0.0 { 100.0 * part / self.whole } else { 0.0 };
        let mut sum = 0.0;
        for function in self.functions.iter().take(self.limit) {
            sum += function.flat;
            writeln!(
                f,
                "{:>9} {:>7.2}% {:>7.2}% {:>9} {:>9} {:>7.2}%  {}",
                human(function.flat, unit),
                percent(function.flat),
                percent(sum),
                human(function.flat_error, unit),
                human(function.cum, unit),
                percent(function.cum),
                shortened(&function.name),
            )?;
        }
        let rest = self.functions.get(self.limit..).unwrap_or_default();
        if !rest.is_empty() {
            let flat: f64 = rest.iter().map(|function| function.flat).sum();
            writeln!(f, "{:>9} {:>7.2}%  in {} more functions", human(flat, unit), percent(flat), rest.len())?;
        }
        Ok(())
    }
}

/// A name that fits into the line: of a path, the end tells more than the beginning.
fn shortened(name: &str) -> String {
    let count = name.chars().count();
    if count <= NAME_COLUMNS {
        return name.to_owned();
    }
    std::iter::once('…').chain(name.chars().skip(count + 1 - NAME_COLUMNS)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{towers, towers_names};
    use super::*;

    #[test]
    fn the_table_is_as_it_was_drawn() {
        let mut names = towers_names;
        let mut top = towers().top(3, &mut Context { namer: Some(&mut names), ..Context::default() });
        assert_eq!(
            top.to_string(),
            "heap, inuse_space: 5.0 MiB ± 2.1 MiB, exactly 5.0 MiB; 12 samples, one per 512 KiB\n\
             \x20    flat    flat%     sum%         ±       cum     cum%  function\n\
             \x20 3.0 MiB   60.00%   60.00%   977 KiB   3.0 MiB   60.00%  tower::raise\n\
             \x20 2.0 MiB   40.00%  100.00%   1.9 MiB   2.0 MiB   40.00%  <[u8; 4] as tower::Stone>::cut\n\
             \x20     0 B    0.00%  100.00%       0 B   5.0 MiB  100.00%  main\n\
             \x20     0 B    0.00%  100.00%       0 B   5.0 MiB  100.00%  tower::build\n\
             \x20     0 B    0.00%  100.00%       0 B   2.0 MiB   40.00%  tower::floor\n"
        );
        top.limit = 1;
        assert!(top.to_string().ends_with("  2.0 MiB   40.00%  in 4 more functions\n"), "{top}");
    }

    #[test]
    fn lines_stay_within_100_columns() {
        let mut long = |address: usize| {
            let function = format!("{}::{address}", "very::long::path::of::modules".repeat(5));
            vec![super::super::Frame { function, ..super::super::Frame::default() }]
        };
        let mut profile = towers();
        for row in &mut profile.rows {
            row.values = row.values.map(|value| value * -1e12);
            row.errors = row.errors.map(|error| error * 1e12);
        }
        for value in 0..4 {
            let text = profile.top(value, &mut Context { namer: Some(&mut long), ..Context::default() }).to_string();
            for line in text.lines() {
                assert!(line.chars().count() <= 100, "{line}");
            }
        }
    }
}
