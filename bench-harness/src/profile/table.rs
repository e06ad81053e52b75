//! Which functions have the most.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::path::Path;

use comfy_table::{CellAlignment, Table, presets};

use super::stacks::Stacks;
use crate::report::{BYTES, COUNTS, Format, PLAIN, TIMES, value};

/// What a function has: itself, which is with what Rust's own library took for it, and with all it calls.
#[derive(Clone, Copy, Default)]
struct Function {
    name: u32,
    own: i64,
    all: i64,
}

/// The functions with the most, or those that changed most.
pub(super) fn of(stacks: &Stacks, file: &Path, n: usize, format: Format) -> String {
    let mut functions: HashMap<u32, Function> = HashMap::new();
    let (mut sum, mut before) = (0_i64, 0_i64);
    for stack in &stacks.stacks {
        let change = stack.value.saturating_sub(stack.before);
        sum = sum.saturating_add(stack.value);
        before = before.saturating_add(stack.before);
        let mut seen = HashSet::new();
        // Who called the library has what the library took for it.
        let owner = stack.frames.iter().position(|&name| !is_library(stacks.name(name))).unwrap_or(0);
        for (place, &name) in stack.frames.iter().enumerate() {
            let function = functions.entry(name).or_insert(Function { name, ..Function::default() });
            if place == owner {
                function.own = function.own.saturating_add(change);
            }
            // Who calls himself has it once.
            if seen.insert(name) {
                function.all = function.all.saturating_add(change);
            }
        }
    }
    let mut functions: Vec<Function> = functions.into_values().filter(|its| its.own != 0 || its.all != 0).collect();
    functions.sort_by(|one, other| {
        let most = |its: &Function| (its.own.unsigned_abs(), its.all.unsigned_abs());
        most(other).cmp(&most(one)).then_with(|| stacks.name(one.name).cmp(stacks.name(other.name)))
    });
    let whole = if stacks.is_compared { before } else { sum };
    print(stacks, file, &functions, n, (sum, before, whole), format)
}

fn print(
    stacks: &Stacks,
    file: &Path,
    functions: &[Function],
    n: usize,
    (sum, before, whole): (i64, i64, i64),
    format: Format,
) -> String {
    let figure = |number: i64| amount(number, &stacks.unit);
    let signed = |number: i64| match (stacks.is_compared, number) {
        (true, 1..) => format!("+{}", figure(number)),
        _ => figure(number),
    };
    let share = |part: i64| {
        let share = if whole == 0 { 0.0 } else { part as f64 / whole as f64 * 100.0 };
        let sign = if stacks.is_compared && part > 0 { "+" } else { "" };
        if whole == 0 { "-".to_owned() } else { format!("{sign}{share:.1}%") }
    };
    let mut table = Table::new();
    table.set_header(["own", "%", "with all it calls", "%", "function"]);
    for its in functions.iter().take(n) {
        table.add_row([signed(its.own), share(its.own), signed(its.all), share(its.all), shortened(stacks.name(its.name))]);
    }
    let sentence = if stacks.is_compared {
        let change = sum.saturating_sub(before);
        format!("{} before, {} now: {} ({}).", figure(before), figure(sum), signed(change), share(change))
    } else {
        format!("{} in {} stacks.", figure(sum), stacks.stacks.len())
    };
    let (heading, style) = if format == Format::Markdown { ("## ", presets::ASCII_MARKDOWN) } else { ("", PLAIN) };
    for column in table.column_iter_mut().take(4) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.load_style(style);
    let mut text = format!("{heading}{}: {}\n\n{sentence}\n\n{}\n", file.display(), stacks.sample, table.trim_fmt());
    let left = functions.len().saturating_sub(n);
    if left > 0 {
        let _ = writeln!(text, "\n{left} more functions have less; -n shows them.");
    }
    if stacks.nameless > 0 {
        let _ = writeln!(
            text,
            "\n{} of {} samples have no names: freestone-bench profile name {} --binary PROGRAM",
            stacks.nameless,
            stacks.samples,
            file.display()
        );
    }
    text
}

/// Does a function belong to what every program in Rust allocates through? Where calls were inlined, all blocks come from `alloc::alloc::alloc`.
fn is_library(name: &str) -> bool {
    let crates = ["alloc::", "core::", "std::", "hashbrown::", "freestone::", "__rust", "__rdl_", "__rg_"];
    let name = name.trim_start_matches(['<', '&', '[']);
    // What any type can do by a trait of the library: `<T as alloc::string::ToString>::to_string`.
    let name = name.strip_prefix("T as ").unwrap_or(name);
    crates.iter().any(|its| name.starts_with(its))
}

fn amount(number: i64, unit: &str) -> String {
    let units = match unit {
        "bytes" => BYTES,
        "nanoseconds" => TIMES,
        _ => COUNTS,
    };
    let size = number.unsigned_abs() as f64;
    let scale = units.iter().find(|(from, _)| size >= *from).copied();
    let sign = if number < 0 { "-" } else { "" };
    match scale {
        Some(scale) => format!("{sign}{}", value(size, scale)),
        None if unit == "count" => format!("{sign}{size:.0}"),
        None => format!("{sign}{size:.0} {}", if unit == "bytes" { "B" } else { "ns" }),
    }
}

/// Names of generic code may have thousands of letters.
fn shortened(name: &str) -> String {
    const LETTERS_MAX: usize = 100;
    let name = name.replace(char::is_control, "?");
    match name.char_indices().nth(LETTERS_MAX) {
        Some((end, _)) => format!("{}…", &name[..end]),
        None => name,
    }
}
