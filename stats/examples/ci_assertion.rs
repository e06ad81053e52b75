//! An assertion for CI: "this function allocates nothing". Run as a test it fails the day somebody adds a `format!` to the hot loop.
//!
//! ```text
//! $ cargo run -p freestone-stats --example ci_assertion
//! sum of 1000 lines: 4500, without an allocation
//! the careless one: 1000 allocations of 8000 bytes, 1000 frees of 8000 bytes
//! ```

use freestone::Freestone;
use freestone_stats::assert;

#[global_allocator]
static GLOBAL: Freestone = Freestone::new();

/// The last digit of every line, added up.
fn sum(lines: &str) -> u32 {
    lines.lines().filter_map(|line| line.chars().last()?.to_digit(10)).sum()
}

/// The same, with a copy of each line that nobody needs.
fn careless_sum(lines: &str) -> u32 {
    let copies = lines.lines().map(str::to_owned);
    copies.filter_map(|line| line.chars().last()?.to_digit(10)).sum()
}

fn main() {
    let lines = (0..1000).map(|number| format!("line {number}")).collect::<Vec<_>>().join("\n");
    let digits = assert::no_alloc(|| sum(&lines));
    println!("sum of 1000 lines: {digits}, without an allocation");
    let (same, counts) = assert::count(|| careless_sum(&lines));
    assert_eq!(same, digits);
    println!("the careless one: {counts}");
}
