//! Reads the tables of a report.

/// The cells behind `name` in the first line that begins with it, of the table with this title.
pub(crate) fn cells(text: &str, title: &str, name: &str) -> String {
    let table = text.split(title).nth(1).unwrap_or_else(|| panic!("no table '{title}' in\n{text}"));
    let line = table.lines().find_map(|line| line.trim_start().strip_prefix(name));
    line.unwrap_or_else(|| panic!("no line '{name}' in\n{table}")).split_whitespace().collect::<Vec<_>>().join(" ")
}
