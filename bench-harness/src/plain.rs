//! Text that others wrote, as a terminal may have it.

use std::borrow::Cow;
use std::fmt::Write;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::record::Kept;
use crate::report::Format;

/// Nothing in it moves the cursor, changes colours or turns the direction of reading: such characters are written out, as `\u{1b}`. Lines end
/// where they did.
pub(crate) fn plain(text: &str) -> Cow<'_, str> {
    if !text.contains(is_harmful) {
        return Cow::Borrowed(text);
    }
    let mut plain = String::with_capacity(text.len() + 16);
    for letter in text.chars() {
        if is_harmful(letter) {
            let _ = write!(plain, "{}", letter.escape_unicode());
        } else {
            plain.push(letter);
        }
    }
    Cow::Owned(plain)
}

/// A session whose names and sentences stay where they are put: in one line, and in Markdown in a cell, without HTML.
pub(crate) fn tamed(kept: &Kept, format: Format) -> Kept {
    Kept {
        session: retold(&kept.session, format),
        runs: kept.runs.iter().map(|run| retold(run, format)).collect(),
        end: kept.end.clone(),
    }
}

/// The same, with every text in it tamed.
fn retold<T: Serialize + DeserializeOwned + Clone>(told: &T, format: Format) -> T {
    let retold = serde_json::to_value(told).map(|value| retold_value(value, format)).and_then(serde_json::from_value);
    retold.unwrap_or_else(|_| told.clone())
}

fn retold_value(value: Value, format: Format) -> Value {
    match value {
        Value::String(text) => Value::String(in_line(&text, format)),
        Value::Array(values) => values.into_iter().map(|value| retold_value(value, format)).collect(),
        Value::Object(fields) => {
            fields.into_iter().map(|(name, value)| (in_line(&name, format), retold_value(value, format))).collect()
        }
        other => other,
    }
}

fn in_line(text: &str, format: Format) -> String {
    let line = text.replace(['\n', '\r'], " ");
    if format == Format::Markdown { line.replace('<', "&lt;").replace('|', "\\|") } else { line }
}

fn is_harmful(letter: char) -> bool {
    // Marks, embeddings, overrides and isolates of direction, and two more ways to end a line.
    let is_invisible =
        matches!(letter, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}');
    (letter.is_control() && letter != '\n') || is_invisible
}

#[cfg(test)]
mod tests {
    use super::{in_line, plain};
    use crate::report::Format;

    #[test]
    fn what_steers_a_terminal_is_written_out() {
        assert_eq!(plain("± 1.02 µs\n~"), "± 1.02 µs\n~");
        assert_eq!(in_line("a | b\n<img>", Format::Markdown), "a \\| b &lt;img>");
        assert_eq!(in_line("a | b\n<img>", Format::Text), "a | b <img>");
        assert_eq!(plain("a\u{1b}[2Jb\rc\u{9b}d\u{202e}e\0"), "a\\u{1b}[2Jb\\u{d}c\\u{9b}d\\u{202e}e\\u{0}");
    }
}
