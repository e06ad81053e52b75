//! What is wrong with a scenario: where, and what was probably meant.

use std::fmt;

/// One mistake, in one line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Mistake {
    /// What the file is called.
    pub(super) file: String,
    /// From 1; 0 when it is about the file as a whole.
    pub(super) line: usize,
    /// Such as `row[2].parameters.streams`; rows and items of lists count from 1. Empty where no key is to blame.
    pub(super) key: String,
    /// A sentence without its full stop.
    pub(super) what: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file)?;
        if self.line > 0 {
            write!(f, "{}:", self.line)?;
        }
        if !self.key.is_empty() {
            write!(f, " {}:", self.key)?;
        }
        write!(f, " {}", self.what)
    }
}

/// Which of `names` somebody meant who wrote `word`, as the end of a sentence: "; did you mean 'streams'?". Of few names that are all
/// unlike, all: "; there are streams, variant". Otherwise nothing.
pub(super) fn meant(word: &str, names: &[&str]) -> String {
    const FEW: usize = 12;
    let nearest = names.iter().map(|name| (distance(word, name), name)).min();
    match nearest {
        // A third of a word may be wrong.
        Some((distance, name)) if distance <= word.chars().count().div_ceil(3) => format!("; did you mean '{name}'?"),
        Some(_) if names.len() <= FEW => format!("; there are {}", names.join(", ")),
        _ => String::new(),
    }
}

/// How many letters have to be changed, added or taken away, or swapped with their neighbour, to get from one word to the other.
fn distance(one: &str, other: &str) -> usize {
    // Nobody means anything by a longer one, and the work grows with the square.
    const LETTERS_MAX: usize = 64;
    let (one, other): (Vec<char>, Vec<char>) = (one.chars().collect(), other.chars().collect());
    if one.len().max(other.len()) > LETTERS_MAX {
        return usize::MAX;
    }
    // Row by row: from the first letters of `one` to all beginnings of `other`.
    let mut before = Vec::new();
    let mut last: Vec<usize> = (0..=other.len()).collect();
    for (i, letter) in one.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, others) in other.iter().enumerate() {
            let mut least = (last[j] + usize::from(letter != others)).min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && one[i - 1] == *others && other[j - 1] == *letter {
                let swapped: &Vec<usize> = &before;
                least = least.min(swapped[j - 1] + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[other.len()]
}

#[cfg(test)]
mod tests {
    use super::{distance, meant};

    #[test]
    fn distances_count_letters() {
        for (one, other, expected) in [
            ("", "", 0),
            ("row", "row", 0),
            ("row", "rows", 1),
            ("rwo", "row", 1),
            ("seed", "sed", 1),
            ("kitten", "sitting", 3),
            ("", "abc", 3),
        ] {
            assert_eq!(distance(one, other), expected, "{one} {other}");
            assert_eq!(distance(other, one), expected, "{other} {one}");
        }
    }

    #[test]
    fn what_is_near_is_proposed_and_what_is_far_is_listed() {
        let names = ["streams", "variant", "rate"];
        assert_eq!(meant("stream", &names), "; did you mean 'streams'?");
        assert_eq!(meant("raet", &names), "; did you mean 'rate'?");
        assert_eq!(meant("workers", &names), "; there are streams, variant, rate");
        assert_eq!(meant("workers", &["far"; 13]), "");
        assert_eq!(meant(&"x".repeat(1_000_000), &names), "; there are streams, variant, rate");
        assert_eq!(meant("x", &[]), "");
    }
}
