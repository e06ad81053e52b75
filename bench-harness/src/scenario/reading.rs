//! Reads a scenario, and finds all of its mistakes rather than the first.
//!
//! ```text
//!   text → tables with places (crate toml) → keys, one by one → rows: every workload with every combination of its parameters
//!                └──────────────┴──────────────────┴───────────────→ mistakes, in the order of the file
//! ```

use std::collections::HashMap;
use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use freestone_bench::workload::parameters::{Parameter, Parameters, Values};
use freestone_bench::workload::{self, Workload};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Scenario;
use super::mistakes::{Mistake, meant};
use crate::arguments::matches;
use crate::plan::Row;
use crate::record::Floors;
use crate::subjects;

/// More rows than that are no scenario, but a list of parameters that got out of hand. The reader of records knows the same bound.
const ROWS_MAX: usize = 1_000;

const KEYS: [&str; 10] =
    ["about", "calls", "environment", "instructions", "percent", "repetitions", "row", "seed", "subjects", "timeout_s"];
const ROW_KEYS: [&str; 3] = ["workloads", "parameters", "floors"];
const FLOOR_KEYS: [&str; 4] = ["min_qps", "max_p99_us", "max_error_rate", "max_peak_rss"];

type Value<'a> = Spanned<DeValue<'a>>;

/// Everything that the text asks for, or all that is wrong with it.
pub(super) fn scenario(file: &str, name: &str, text: &str) -> Result<Scenario, Vec<Mistake>> {
    let mut reader = Reader { file, text, mistakes: Vec::new() };
    let (document, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        let at = error.span().map_or(text.len(), |span| span.start);
        let message = error.message().split_whitespace().collect::<Vec<_>>().join(" ");
        reader.mistake(at, "", message);
    }
    // What is left of a file after such a mistake is guessed: half of what it would be blamed for is the same mistake again.
    let scenario = if reader.mistakes.is_empty() { reader.scenario(name, document.get_ref()) } else { Scenario::default() };
    reader.mistakes.sort_by_key(|(at, _)| *at);
    let mistakes: Vec<Mistake> = reader.mistakes.into_iter().map(|(_, mistake)| mistake).collect();
    if mistakes.is_empty() { Ok(scenario) } else { Err(mistakes) }
}

struct Reader<'a> {
    file: &'a str,
    text: &'a str,
    /// With their places, as they are found: by key.
    mistakes: Vec<(usize, Mistake)>,
}

/// Something that stands at a place.
struct Placed<T> {
    at: usize,
    key: String,
    value: T,
}

/// Rows that are already there, by what they run: the key of the first, and its place.
type Seen = HashMap<(&'static str, Vec<String>), (String, usize)>;

impl Reader<'_> {
    fn mistake(&mut self, at: usize, key: &str, what: String) {
        let line = self.line(at);
        self.mistakes.push((at, Mistake { file: self.file.to_owned(), line, key: key.to_owned(), what }));
    }

    /// The line of a place, from 1. A file that ends too early is to blame at its last line, not at the one after that.
    fn line(&self, at: usize) -> usize {
        let before = &self.text.as_bytes()[..at.min(self.text.len())];
        let is_behind_all = at >= self.text.len() && self.text.ends_with('\n');
        before.split(|byte| *byte == b'\n').count() - usize::from(is_behind_all)
    }

    /// `… is not …`.
    fn refuse(&mut self, key: &str, value: &Value<'_>, expected: &str) {
        self.mistake(value.span().start, key, format!("{} is not {expected}", shown(value.get_ref())));
    }

    fn check_keys(&mut self, within: &str, table: &DeTable<'_>, known: &[&str]) {
        for name in table.keys() {
            if !known.contains(&&**name.get_ref()) {
                let what = format!("there is no such key{}", meant(name.get_ref(), known));
                self.mistake(name.span().start, &under(within, name.get_ref()), what);
            }
        }
    }

    fn scenario(&mut self, name: &str, document: &DeTable<'_>) -> Scenario {
        self.check_keys("", document, &KEYS);
        let default = Scenario::default();
        let mut number =
            |key: &str, range: RangeInclusive<u64>| document.get(key).and_then(|value| self.number(key, value, range));
        let repetitions = number("repetitions", 1..=1_000).unwrap_or(default.repetitions);
        let percent = number("percent", 1..=100).unwrap_or(default.percent);
        let timeout = number("timeout_s", 1..=86_400).map_or(default.timeout, Duration::from_secs);
        let seed = number("seed", 0..=u64::MAX);
        let mut truth = |key: &str| document.get(key).and_then(|value| self.truth(key, value)).unwrap_or(false);
        let (calls, instructions) = (truth("calls"), truth("instructions"));
        Scenario {
            name: name.to_owned(),
            about: document.get("about").map(|value| self.about(value)).unwrap_or_default(),
            subjects: document.get("subjects").map(|value| self.subjects(value)).unwrap_or_default(),
            repetitions,
            percent,
            seed,
            timeout,
            calls,
            instructions,
            environment: document.get("environment").map(|value| self.environment(value)).unwrap_or_default(),
            rows: self.rows(document),
        }
    }

    fn number(&mut self, key: &str, value: &Value<'_>, range: RangeInclusive<u64>) -> Option<u64> {
        let number = whole(value.get_ref()).filter(|number| range.contains(number));
        if number.is_none() {
            self.refuse(key, value, &format!("a whole number from {} to {}", range.start(), range.end()));
        }
        number
    }

    fn truth(&mut self, key: &str, value: &Value<'_>) -> Option<bool> {
        let truth = value.get_ref().as_bool();
        if truth.is_none() {
            self.mistake(value.span().start, key, format!("{} is neither true nor false", shown(value.get_ref())));
        }
        truth
    }

    fn about(&mut self, value: &Value<'_>) -> String {
        const LETTERS_MAX: usize = 200;
        let is_sentence =
            |text: &&str| !text.trim().is_empty() && text.chars().count() <= LETTERS_MAX && !text.contains(char::is_control);
        match value.get_ref().as_str().filter(is_sentence) {
            Some(text) => text.to_owned(),
            None => {
                self.refuse("about", value, &format!("a sentence in one line of at most {LETTERS_MAX} letters"));
                String::new()
            }
        }
    }

    /// A list of strings that has something in it.
    fn names(&mut self, key: &str, value: &Value<'_>) -> Vec<Placed<String>> {
        let Some(list) = value.get_ref().as_array().filter(|list| !list.is_empty()) else {
            self.refuse(key, value, "a list of names");
            return Vec::new();
        };
        let mut names = Vec::new();
        for (index, item) in list.iter().enumerate() {
            let key = format!("{key}[{}]", index + 1);
            match item.get_ref().as_str() {
                Some(name) => names.push(Placed { at: item.span().start, key, value: name.to_owned() }),
                None => self.refuse(&key, item, "a name"),
            }
        }
        names
    }

    fn subjects(&mut self, value: &Value<'_>) -> Vec<String> {
        let all: Vec<&str> = subjects::ALL.iter().map(|subject| subject.name).collect();
        let mut names: Vec<String> = Vec::new();
        for Placed { at, key, value: name } in self.names("subjects", value) {
            if name != subjects::EVERYONE && !all.contains(&&*name) {
                let what = format!("there is no subject {}{}", quoted(&name), meant(&name, &all));
                self.mistake(at, &key, what);
            } else if names.contains(&name) {
                self.mistake(at, &key, format!("'{name}' is there already"));
            } else {
                names.push(name);
            }
        }
        names
    }

    fn environment(&mut self, value: &Value<'_>) -> Vec<(String, String)> {
        let Some(table) = value.get_ref().as_table() else {
            self.refuse("environment", value, "a table of variables");
            return Vec::new();
        };
        let mut variables = Vec::new();
        for (name, value) in table {
            let key = under("environment", name.get_ref());
            if name.get_ref().is_empty() || name.get_ref().contains(['=', '\0']) {
                self.mistake(name.span().start, &key, "no variable can have such a name".to_owned());
            }
            match value.get_ref().as_str() {
                Some(text) if !text.contains('\0') => variables.push((name.get_ref().to_string(), text.to_owned())),
                _ => self.refuse(&key, value, "a string that a variable can hold"),
            }
        }
        variables
    }

    fn rows(&mut self, document: &DeTable<'_>) -> Vec<Row> {
        let Some(value) = document.get("row") else {
            self.mistake(0, "row", "there is none, so there is nothing to run".to_owned());
            return Vec::new();
        };
        let Some(list) = value.get_ref().as_array().filter(|list| !list.is_empty()) else {
            self.refuse("row", value, "a list of tables, each under [[row]]");
            return Vec::new();
        };
        let (mut rows, mut seen) = (Vec::new(), Seen::new());
        for (index, item) in list.iter().enumerate() {
            let key = format!("row[{}]", index + 1);
            match item.get_ref().as_table() {
                Some(table) => self.row(&key, item.span(), table, &mut seen, &mut rows),
                None => self.refuse(&key, item, "a table under [[row]]"),
            }
            if rows.len() > ROWS_MAX {
                self.mistake(item.span().start, &key, format!("there are more than {ROWS_MAX} rows up to here"));
                break;
            }
        }
        rows
    }

    /// All rows that a table stands for.
    fn row(&mut self, key: &str, span: Range<usize>, table: &DeTable<'_>, seen: &mut Seen, rows: &mut Vec<Row>) {
        let mistakes_before = self.mistakes.len();
        self.check_keys(key, table, &ROW_KEYS);
        let workloads = match table.get("workloads") {
            Some(value) => self.workloads(&under(key, "workloads"), value),
            None => {
                self.mistake(span.start, &under(key, "workloads"), "it is missing".to_owned());
                return;
            }
        };
        let parameters = match table.get("parameters") {
            Some(value) => self.parameters(&under(key, "parameters"), value, &workloads),
            None => Vec::new(),
        };
        let Some(combined) = combinations(&parameters) else {
            let what = format!("its lists make more than {ROWS_MAX} combinations");
            self.mistake(span.start, &under(key, "parameters"), what);
            return;
        };
        let floors = table.get("floors").map(|value| (value, self.floors(&under(key, "floors"), value, &workloads)));
        if self.mistakes.len() > mistakes_before {
            return;
        }
        for Placed { at, key: name, value: workload } in workloads {
            for chosen in &combined {
                let row = row(workload, chosen, floors.as_ref().map_or_else(Floors::default, |(_, floors)| *floors));
                let resolved = Parameters::new(row.parameters.clone());
                let what_it_runs = (workload.name, workload.parameters().iter().map(|its| said(&resolved, its)).collect());
                if let Some((first, place)) = seen.get(&what_it_runs) {
                    let what = format!("'{}' is there already, by {first} in line {}", row.title(), self.line(*place));
                    self.mistake(at, &name, what);
                    continue;
                }
                seen.insert(what_it_runs, (name.clone(), at));
                if let Some((value, _)) = floors {
                    self.contradiction(&under(key, "floors"), value, &row, &resolved);
                }
                rows.push(row);
            }
        }
    }

    /// The workloads that match, each at the name or pattern that it matches.
    fn workloads(&mut self, key: &str, value: &Value<'_>) -> Vec<Placed<&'static Workload>> {
        let mut found = Vec::new();
        for Placed { at, key, value: wanted } in self.names(key, value) {
            let before = found.len();
            let matching = workload::all().filter(|its| matches(&wanted, its.name));
            found.extend(matching.map(|value| Placed { at, key: key.clone(), value }));
            if found.len() > before {
                continue;
            }
            let all: Vec<&str> = workload::all().map(|its| its.name).collect();
            let what = if wanted.contains('*') {
                format!("no workload is like {}; freestone-bench --list names them", quoted(&wanted))
            } else {
                format!("there is no workload {}{}", quoted(&wanted), meant(&wanted, &all))
            };
            self.mistake(at, &key, what);
        }
        found
    }

    /// What each parameter is to be, in the order of the first workload's own list.
    fn parameters(
        &mut self,
        key: &str,
        value: &Value<'_>,
        workloads: &[Placed<&'static Workload>],
    ) -> Vec<(String, Vec<String>)> {
        let Some(table) = value.get_ref().as_table() else {
            self.refuse(key, value, "a table of parameters");
            return Vec::new();
        };
        let mut chosen = Vec::new();
        for (name, value) in table {
            let key = under(key, name.get_ref());
            let mut values = None;
            // What one workload takes another may not, even under the same name. The first that objects is enough.
            for workload in workloads {
                let mistakes_before = self.mistakes.len();
                let all = workload.value.parameters();
                match all.iter().find(|its| its.name == name.get_ref()) {
                    Some(parameter) => values = Some(self.values(&key, value, parameter)),
                    None => {
                        let names: Vec<&str> = all.iter().map(|its| its.name).collect();
                        let what = format!("{} has no such parameter{}", workload.value.name, meant(name.get_ref(), &names));
                        self.mistake(name.span().start, &key, what);
                    }
                }
                if self.mistakes.len() > mistakes_before {
                    break;
                }
            }
            chosen.extend(values.map(|values| (name.get_ref().to_string(), values)));
        }
        if let Some(first) = workloads.first() {
            chosen.sort_by_key(|(name, _)| place(first.value, name));
        }
        chosen
    }

    /// A value, or a list of values.
    fn values(&mut self, key: &str, value: &Value<'_>, parameter: &Parameter) -> Vec<String> {
        let Some(list) = value.get_ref().as_array() else { return self.value(key, value, parameter).into_iter().collect() };
        if list.is_empty() {
            self.mistake(value.span().start, key, "an empty list makes no row".to_owned());
        }
        let mut values = Vec::new();
        for (index, item) in list.iter().enumerate() {
            let key = format!("{key}[{}]", index + 1);
            match self.value(&key, item, parameter) {
                Some(value) if values.contains(&value) => {
                    self.mistake(item.span().start, &key, format!("{value} is there already"));
                }
                value => values.extend(value),
            }
        }
        values
    }

    fn value(&mut self, key: &str, value: &Value<'_>, parameter: &Parameter) -> Option<String> {
        let text = match value.get_ref() {
            // As a subject's command line wants it, however it was written.
            DeValue::Integer(_) => whole(value.get_ref()).map(|number| number.to_string()),
            // A number in quotes is a word, which this parameter does not take.
            DeValue::String(_) if matches!(parameter.values, Values::Number { .. }) => None,
            DeValue::String(text) => Some(text.to_string()),
            _ => None,
        };
        // Nothing is a value of the empty name, so the sentence is the same whatever was wrong.
        match parameter.values.check(text.as_deref().unwrap_or_default()) {
            Ok(()) => text,
            Err(expected) => {
                self.mistake(value.span().start, key, format!("{} is {expected}", shown(value.get_ref())));
                None
            }
        }
    }

    fn floors(&mut self, key: &str, value: &Value<'_>, workloads: &[Placed<&'static Workload>]) -> Floors {
        let Some(table) = value.get_ref().as_table().filter(|table| !table.is_empty()) else {
            self.refuse(key, value, &format!("a table with some of {}", FLOOR_KEYS.join(", ")));
            return Floors::default();
        };
        self.check_keys(key, table, &FLOOR_KEYS);
        for (name, value) in table {
            let incapable = workloads.iter().find_map(|its| Some((its.value.name, why_not(name.get_ref(), its.value)?)));
            if let Some((workload, why)) = incapable {
                self.mistake(value.span().start, &under(key, name.get_ref()), format!("{workload} {why}"));
            }
        }
        let mut real = |name: &str, expected: &str, is_right: fn(f64) -> bool| {
            let value = table.get(name)?;
            let number = real(value.get_ref()).filter(|number| is_right(*number));
            if number.is_none() {
                self.refuse(&under(key, name), value, expected);
            }
            number
        };
        Floors {
            min_qps: real("min_qps", "a number above 0", |number| number > 0.0),
            max_p99_us: real("max_p99_us", "a number of microseconds above 0", |number| number > 0.0),
            max_error_rate: real("max_error_rate", "a share from 0 to 1", |number| (0.0..=1.0).contains(&number)),
            max_peak_rss: table.get("max_peak_rss").and_then(|value| self.size(&under(key, "max_peak_rss"), value)),
        }
    }

    fn size(&mut self, key: &str, value: &Value<'_>) -> Option<u64> {
        // The smallest program that does nothing has half a MiB: who writes less forgot the unit.
        const BYTES_MIN: u64 = 1 << 19;
        let bytes = value.get_ref().as_str().map_or_else(|| whole(value.get_ref()), bytes);
        match bytes {
            None => self.refuse(key, value, "a size such as \"512 MiB\", in B, KiB, MiB or GiB"),
            Some(bytes) if bytes < BYTES_MIN => {
                self.mistake(value.span().start, key, format!("no process is as small as {}", shown(value.get_ref())));
            }
            _ => {}
        }
        bytes
    }

    /// Floors that no subject can reach, whoever it is.
    fn contradiction(&mut self, key: &str, value: &Value<'_>, row: &Row, chosen: &Parameters) {
        let all = row.workload.parameters();
        let named = |name: &str| all.iter().find(|its| its.name == name);
        let is_open = named("loop").is_some_and(|its| chosen.word(its) == "open");
        let (Some(floor), Some(rate)) = (row.floors.min_qps, named("rate").filter(|_| is_open)) else { return };
        let rate = chosen.number(rate);
        if rate > 0 && floor > rate as f64 {
            let at = value
                .get_ref()
                .as_table()
                .and_then(|table| table.get("min_qps"))
                .map_or(value.span().start, |its| its.span().start);
            let what = format!("{floor} can never be reached, as the row sends {rate} requests per second (rate)");
            self.mistake(at, &under(key, "min_qps"), what);
        }
    }
}

/// A row has one title, however it is written: with its parameters in the order of the workload's list.
fn row(workload: &'static Workload, chosen: &[(&str, &str)], floors: Floors) -> Row {
    let mut parameters: Vec<(String, String)> =
        chosen.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    parameters.sort_by_key(|(name, _)| place(workload, name));
    Row { workload, parameters, floors }
}

/// Where a workload's list of parameters has this one.
fn place(workload: &Workload, name: &str) -> Option<usize> {
    workload.parameters().iter().position(|its| its.name == name)
}

/// What a parameter is, chosen or not.
fn said(chosen: &Parameters, parameter: &Parameter) -> String {
    match parameter.values {
        Values::Number { .. } => chosen.number(parameter).to_string(),
        Values::Word(_) => chosen.word(parameter).to_owned(),
    }
}

/// Why a workload cannot have a floor: ends the sentence that begins with its name.
fn why_not(floor: &str, workload: &Workload) -> Option<&'static str> {
    match floor {
        "min_qps" if workload.is_over_time() => Some("waits most of its time, so a rate says nothing about it"),
        "max_p99_us" if !workload.is_service() && !workload.is_latency() => Some("does not time its operations one by one"),
        "max_error_rate" if !workload.is_service() => Some("has no requests that could fail"),
        _ => None,
    }
}

/// Every combination of the values, the first parameter's changing most slowly. `None` of far too many.
fn combinations(parameters: &[(String, Vec<String>)]) -> Option<Vec<Vec<(&str, &str)>>> {
    let mut combined: Vec<Vec<(&str, &str)>> = vec![Vec::new()];
    for (name, values) in parameters {
        if combined.len().checked_mul(values.len())? > ROWS_MAX {
            return None;
        }
        let mut more = Vec::with_capacity(combined.len() * values.len());
        for before in &combined {
            more.extend(values.iter().map(|value| [before.as_slice(), &[(name.as_str(), value.as_str())]].concat()));
        }
        combined = more;
    }
    Some(combined)
}

fn under(key: &str, name: &str) -> String {
    let is_bare = !name.is_empty() && name.chars().all(|letter| letter.is_ascii_alphanumeric() || "-_".contains(letter));
    let name = if is_bare { name.to_owned() } else { format!("\"{}\"", shortened(name)) };
    if key.is_empty() { name } else { format!("{key}.{name}") }
}

/// A whole number that is not below 0.
fn whole(value: &DeValue<'_>) -> Option<u64> {
    let number = value.as_integer()?;
    u64::from_str_radix(number.as_str(), number.radix()).ok()
}

/// A number that is neither infinite nor none at all.
fn real(value: &DeValue<'_>) -> Option<f64> {
    let number = match value {
        DeValue::Float(number) => number.as_str().parse().ok()?,
        other => whole(other)? as f64,
    };
    Some(number).filter(|number: &f64| number.is_finite())
}

/// `512 MiB` in bytes.
fn bytes(text: &str) -> Option<u64> {
    const UNITS: [(&str, u32); 4] = [("GiB", 30), ("MiB", 20), ("KiB", 10), ("B", 0)];
    let text = text.trim();
    let (number, shift) = UNITS.iter().find_map(|(unit, shift)| Some((text.strip_suffix(unit)?.trim_end(), *shift)))?;
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(1 << shift);
    }
    let is_plain = number.chars().all(|letter| letter.is_ascii_digit() || letter == '.');
    let bytes = number.parse::<f64>().ok().filter(|_| is_plain)? * f64::from(1 << shift);
    (bytes < 2_f64.powi(63)).then_some(bytes as u64)
}

/// A value as a message can hold it.
fn shown(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => quoted(text),
        DeValue::Integer(number) => shortened(&number.to_string()),
        DeValue::Float(number) => shortened(number.as_str()),
        DeValue::Boolean(truth) => truth.to_string(),
        DeValue::Datetime(date) => date.to_string(),
        DeValue::Array(list) if list.is_empty() => "an empty list".to_owned(),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(table) if table.is_empty() => "an empty table".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}

fn quoted(text: &str) -> String {
    format!("'{}'", shortened(text))
}

/// In one line, and not a long one.
fn shortened(text: &str) -> String {
    const LETTERS_MAX: usize = 60;
    let mut short: String = text
        .chars()
        .take(LETTERS_MAX)
        .flat_map(|letter| if letter == '\'' { vec![letter] } else { letter.escape_debug().collect() })
        .collect();
    if text.chars().nth(LETTERS_MAX).is_some() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::{bytes, shortened};

    #[test]
    fn sizes_have_units() {
        assert_eq!(bytes("512 MiB"), Some(512 << 20));
        assert_eq!(bytes("1.5GiB"), Some(3 << 29));
        assert_eq!(bytes("7 B"), Some(7));
        for wrong in [
            "512",
            "512 MB",
            "-1 MiB",
            "MiB",
            "1e9 MiB",
            "99999999999999999999 GiB",
            "18446744073709551615 KiB",
            "nan B",
            "inf B",
        ] {
            assert_eq!(bytes(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn what_is_quoted_stays_in_its_line() {
        assert_eq!(shortened("a\n\u{1b}[31mb's"), "a\\n\\u{1b}[31mb's");
        assert_eq!(shortened(&"é".repeat(100)), "é".repeat(60) + "…");
    }
}
