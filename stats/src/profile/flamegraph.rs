//! Flame graphs, by `inferno`.

use inferno::flamegraph::{Options, color, from_lines};

use super::notes::human;
use super::{Context, Kind, Profile};

impl Profile {
    /// A column as a flame graph: an SVG document with search and zoom, that needs nothing besides. Of a column that the kind does not have, its usual one.
    /// Rows with nothing, or less than nothing, are not in it.
    #[must_use]
    pub fn flamegraph(&self, value: usize, context: &mut Context<'_>) -> String {
        freestone::profile::without_samples(|| {
            let value = self.value_or_default(value);
            let folded = self.folded(value, context);
            if folded.is_empty() {
                return EMPTY.to_owned();
            }
            let mut svg = Vec::new();
            match from_lines(&mut self.options(value), folded.lines(), &mut svg) {
                Ok(()) => String::from_utf8(svg).unwrap_or_else(|_| EMPTY.to_owned()),
                Err(_) => EMPTY.to_owned(),
            }
        })
    }

    fn options(&self, value: usize) -> Options<'static> {
        let of = self.kind.value_types()[value];
        let mut options = Options::default();
        options.title = format!("{}: {}", title(self.kind), of.name);
        let exact = self.exact.totals[value].map(|exact| format!(", exactly {}", human(exact as f64, of.unit)));
        options.subtitle = Some(format!(
            "{} ± {}{}; {} samples",
            human(self.total(value), of.unit),
            human(self.total_error(value), of.unit),
            exact.unwrap_or_default(),
            self.samples(),
        ));
        of.unit.clone_into(&mut options.count_name);
        options.colors = color::Palette::Basic(color::BasicPalette::Mem);
        // The same function has the same colour in every graph, and the same profile the same document.
        options.hash = true;
        options
    }
}

fn title(kind: Kind) -> &'static str {
    match kind {
        Kind::Heap => "Heap",
        Kind::Allocs => "Allocations",
        Kind::Peak => "Peak of the heap",
        Kind::Lifetimes => "Lifetimes",
        Kind::Fragmentation => "Fragmentation",
        Kind::Contention => "Contention",
    }
}

/// What is shown where there is nothing: `inferno` has only an error for that.
const EMPTY: &str = r#"<?xml version="1.0" standalone="no"?>
<svg version="1.1" width="1200" height="60" viewBox="0 0 1200 60" xmlns="http://www.w3.org/2000/svg">
<rect width="100%" height="100%" fill="whitesmoke"/>
<text x="600" y="36" font-family="sans-serif" font-size="16" text-anchor="middle">Nothing was sampled that this could show.</text>
</svg>
"#;

#[cfg(test)]
mod tests {
    use super::super::Builder;
    use super::super::tests::{towers, towers_names};
    use super::*;

    #[test]
    fn a_graph_has_every_function_and_what_it_stands_on() {
        let mut names = towers_names;
        let svg = towers().flamegraph(3, &mut Context { namer: Some(&mut names), ..Context::default() });
        assert!(svg.starts_with("<?xml") && svg.trim_end().ends_with("</svg>"));
        for what in ["tower::raise", "&lt;[u8: 4] as tower::Stone&gt;::cut", "Heap: inuse_space", "exactly 5.0 MiB", "samples"] {
            assert!(svg.contains(what), "{what}");
        }
        assert_eq!(svg.matches("<title>tower::raise").count(), 1, "64 bytes among millions are too narrow to be drawn");
    }

    #[test]
    fn nothing_is_a_graph_as_well() {
        let svg = Builder::new(Kind::Heap).finish().flamegraph(3, &mut Context::default());
        assert!(svg.contains("Nothing was sampled"), "{svg}");
    }
}
