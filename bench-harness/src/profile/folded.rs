//! Stacks as lines, and as a picture of these.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use inferno::flamegraph::{self, Options, color};

use super::stacks::{Stack, Stacks};

/// A line for each stack, root first: `main;tower::raise 4096`. With something to compare with there are two numbers, the earlier one first, as tools for
/// differential flame graphs read it.
pub(super) fn lines(stacks: &Stacks) -> String {
    let mut text = String::new();
    for Stack { frames, value, before } in &stacks.stacks {
        // These formats have no negative numbers, and nothing to say of nothing.
        let (value, before) = ((*value).max(0), (*before).max(0));
        if value == 0 && before == 0 {
            continue;
        }
        for (place, frame) in frames.iter().rev().enumerate() {
            let between = if place > 0 { ";" } else { "" };
            let _ = write!(text, "{between}{}", stacks.name(*frame).replace(';', ":").replace(char::is_control, "?"));
        }
        if frames.is_empty() {
            text.push_str("[unknown]");
        }
        let _ = if stacks.is_compared { writeln!(text, " {before} {value}") } else { writeln!(text, " {value}") };
    }
    text
}

pub(super) fn flamegraph(stacks: &Stacks, file: &Path) -> Result<Vec<u8>> {
    let folded = lines(stacks);
    ensure!(!folded.is_empty(), "{} has no {}, so there is nothing to draw", file.display(), stacks.sample);
    let mut options = Options::default();
    options.title = format!("{}: {}", file.display(), stacks.sample);
    options.count_name.clone_from(&stacks.unit);
    options.colors = color::Palette::Basic(color::BasicPalette::Mem);
    options.hash = true;
    let mut svg = Vec::new();
    flamegraph::from_lines(&mut options, folded.lines(), &mut svg).with_context(|| format!("cannot draw {}", file.display()))?;
    Ok(svg)
}
