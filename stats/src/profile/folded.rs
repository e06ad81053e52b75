//! Folded text: a line for each stack, root first, as tools for flame graphs read it. A `;` in a name is written as `:`.

use std::io::{self, Write};

use super::labels::Labels;
use super::stacks::NumberMap;
use super::{Context, Profile, Row};

impl Profile {
    /// A column as folded text: `main;tower::raise;alloc 4096`. Of one that the kind does not have, its usual one. Rows with nothing, or less than nothing,
    /// are not in it.
    #[must_use]
    pub fn folded(&self, value: usize, context: &mut Context<'_>) -> String {
        freestone::profile::without_samples(|| {
            let mut text = Vec::new();
            // A vector takes everything.
            let _ = self.write_folded(&mut text, value, context);
            String::from_utf8(text).unwrap_or_default()
        })
    }

    /// The same, into a file or a connection, line by line.
    ///
    /// # Errors
    ///
    /// Those of `to`.
    pub fn write_folded(&self, mut to: impl Write, value: usize, context: &mut Context<'_>) -> io::Result<()> {
        freestone::profile::without_samples(|| self.each_folded(value, context, |line, count| writeln!(to, "{line} {count}")))
    }

    /// Hands over every stack that has something of a column, those with the most first.
    fn each_folded<E>(
        &self,
        value: usize,
        context: &mut Context<'_>,
        mut each: impl FnMut(&str, u64) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut labels = Labels::new(self, context);
        let mut line = String::new();
        for (row, count) in self.by_stack(self.value_or_default(value)) {
            labels.folded(row, &mut line);
            each(&line, count)?;
        }
        Ok(())
    }

    /// A row of every stack, with what all rows of that stack have in a column: the most first.
    fn by_stack(&self, value: usize) -> Vec<(&Row, u64)> {
        let mut sums: NumberMap<u32, (u32, f64)> = NumberMap::default();
        for (index, row) in self.rows.iter().enumerate() {
            sums.entry(row.stack).or_insert((index as u32, 0.0)).1 += row.values[value];
        }
        let mut stacks: Vec<(u32, u64)> =
            sums.into_values().map(|(index, sum)| (index, sum.round().max(0.0) as u64)).filter(|&(_, count)| count > 0).collect();
        stacks.sort_unstable_by_key(|&(index, count)| (std::cmp::Reverse(count), index));
        stacks.into_iter().map(|(index, count)| (&self.rows[index as usize], count)).collect()
    }

    /// A column, or the usual one if there is no such.
    pub(super) fn value_or_default(&self, value: usize) -> usize {
        if value < self.kind.value_types().len() { value } else { self.kind.default_value() }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{towers, towers_names};
    use super::*;

    #[test]
    fn every_stack_has_one_line() {
        let profile = towers();
        let mut names = towers_names;
        let text = profile.folded(3, &mut Context { namer: Some(&mut names), ..Context::default() });
        assert_eq!(
            text,
            "main;tower::build;tower::raise 3145728\n\
             main;tower::build;tower::floor;<[u8: 4] as tower::Stone>::cut 2097152\n\
             [cut];tower::raise 64\n"
        );
    }

    #[test]
    fn without_names_there_are_addresses_of_calls() {
        let profile = towers();
        let text = profile.folded(2, &mut Context::default());
        assert_eq!(text, "0x1fff;0x2fff;0x3fff 4096\n0x1fff;0x2fff;0x4fff 1\n[cut];0x3fff 1\n");
    }

    #[test]
    fn a_column_that_is_not_there_is_the_usual_one() {
        let profile = towers();
        assert_eq!(profile.folded(17, &mut Context::default()), profile.folded(3, &mut Context::default()));
    }
}
