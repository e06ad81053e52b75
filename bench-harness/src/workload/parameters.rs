//! What can be chosen about a workload.

/// Something that can be chosen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Parameter {
    /// The name, in scenarios and on a subject's command line.
    pub name: &'static str,
    /// What it does, with its unit.
    pub about: &'static str,
    /// What it can be.
    pub values: Values,
}

/// What a parameter can be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Values {
    /// A whole number.
    Number {
        /// At least.
        least: u64,
        /// At most.
        most: u64,
        /// If nobody chooses.
        default: u64,
    },
    /// One of these words; the first, if nobody chooses.
    Word(&'static [&'static str]),
}

impl Values {
    /// Is this one of them? If not, ends the sentence "it is …".
    ///
    /// # Errors
    ///
    /// What it has to be.
    pub fn check(&self, value: &str) -> Result<(), String> {
        match *self {
            Self::Number { least, most, .. } => match value.parse::<u64>() {
                Ok(number) if (least..=most).contains(&number) => Ok(()),
                _ => Err(format!("not a whole number from {least} to {most}")),
            },
            Self::Word(words) if words.contains(&value) => Ok(()),
            Self::Word(words) => Err(format!("none of {}", words.join(", "))),
        }
    }
}

impl std::fmt::Display for Values {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match *self {
            Self::Number { least, most, default } => write!(f, "{least} to {most}, by default {default}"),
            Self::Word(words) => write!(f, "{}, by default {}", words.join(" or "), words.first().unwrap_or(&"nothing")),
        }
    }
}

/// What was chosen.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Parameters(Vec<(String, String)>);

impl Parameters {
    /// Of pairs that [`Values::check`] has seen.
    #[must_use]
    pub fn new(chosen: Vec<(String, String)>) -> Self {
        Self(chosen)
    }

    fn chosen(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(chosen, _)| chosen == name).map(|(_, value)| &**value)
    }

    /// A number: the one that was chosen, or the default.
    #[must_use]
    pub fn number(&self, parameter: &Parameter) -> u64 {
        let default = if let Values::Number { default, .. } = parameter.values { default } else { 0 };
        self.chosen(parameter.name).and_then(|value| value.parse().ok()).unwrap_or(default)
    }

    /// A word: the one that was chosen, or the default.
    #[must_use]
    pub fn word(&self, parameter: &Parameter) -> &str {
        let default = if let Values::Word(words) = parameter.values { words.first().copied() } else { None };
        self.chosen(parameter.name).or(default).unwrap_or_default()
    }
}
