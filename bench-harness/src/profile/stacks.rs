//! One column of a profile, by names: what is shown of it.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Result, bail};
use freestone_stats::profile::pprof::proto;

/// A stack, the innermost function first, and what it has; with another profile to compare with, what it had in that.
pub(super) struct Stack {
    pub(super) frames: Vec<u32>,
    pub(super) value: i64,
    pub(super) before: i64,
}

/// A column of a profile.
pub(super) struct Stacks {
    /// Such as `inuse_space`.
    pub(super) sample: String,
    /// Such as `bytes`.
    pub(super) unit: String,
    /// Whether `before` says anything.
    pub(super) is_compared: bool,
    pub(super) stacks: Vec<Stack>,
    names: Vec<String>,
    numbers: HashMap<String, u32>,
    /// Samples, and those of them in which no function has a name.
    pub(super) samples: usize,
    pub(super) nameless: usize,
}

impl Stacks {
    /// Takes the column of this name, or the one that the profile says is to be shown.
    pub(super) fn of(profile: &proto::Profile, sample: Option<&str>, file: &Path) -> Result<Self> {
        let text =
            |index: i64| usize::try_from(index).ok().and_then(|index| profile.string_table.get(index)).map_or("", |text| text);
        let types: Vec<&str> = profile.sample_type.iter().map(|its| text(its.r#type)).collect();
        let shown = text(profile.default_sample_type);
        let column = match sample {
            Some(sample) => types.iter().position(|its| *its == sample),
            None => types.iter().position(|its| *its == shown).or(types.len().checked_sub(1)),
        };
        let Some(column) = column else {
            bail!("{} has no values called '{}'; it has {}", file.display(), sample.unwrap_or_default(), types.join(", "));
        };
        let mut stacks = Self {
            sample: types[column].to_owned(),
            unit: text(profile.sample_type[column].unit).to_owned(),
            is_compared: false,
            stacks: Vec::new(),
            names: Vec::new(),
            numbers: HashMap::new(),
            samples: 0,
            nameless: 0,
        };
        // Functions of every location, innermost first.
        let functions: HashMap<u64, &proto::Function> = profile.function.iter().map(|its| (its.id, its)).collect();
        let mappings: HashMap<u64, &proto::Mapping> = profile.mapping.iter().map(|its| (its.id, its)).collect();
        let mut frames: HashMap<u64, (Vec<u32>, bool)> = HashMap::new();
        for location in &profile.location {
            let named: Vec<&str> = location
                .line
                .iter()
                .filter_map(|line| functions.get(&line.function_id).map(|its| text(its.name)))
                .filter(|name| !name.is_empty())
                .collect();
            let numbers = if named.is_empty() {
                vec![stacks.number(&address(location, mappings.get(&location.mapping_id).copied(), &text))]
            } else {
                named.iter().map(|name| stacks.number(name)).collect()
            };
            frames.insert(location.id, (numbers, !named.is_empty()));
        }
        let mut merged: HashMap<Vec<u32>, i64> = HashMap::new();
        for sample in &profile.sample {
            let value = sample.value.get(column).copied().unwrap_or(0);
            let of_sample = sample.location_id.iter().filter_map(|id| frames.get(id));
            let is_named = of_sample.clone().any(|(_, is_named)| *is_named);
            stacks.samples += 1;
            stacks.nameless += usize::from(!is_named);
            let sum = merged.entry(of_sample.flat_map(|(frames, _)| frames).copied().collect()).or_default();
            *sum = sum.saturating_add(value);
        }
        stacks.stacks = merged.into_iter().map(|(frames, value)| Stack { frames, value, before: 0 }).collect();
        stacks.sort();
        Ok(stacks)
    }

    /// Puts what an earlier profile has beside it.
    pub(super) fn compare(&mut self, earlier: &Self, file: &Path) -> Result<()> {
        if earlier.unit != self.unit {
            bail!("{} counts {} in '{}', where the other file counts {}", file.display(), earlier.unit, self.sample, self.unit);
        }
        let mut known: HashMap<Vec<u32>, usize> =
            self.stacks.iter().enumerate().map(|(index, its)| (its.frames.clone(), index)).collect();
        for stack in &earlier.stacks {
            let frames: Vec<u32> = stack.frames.iter().map(|&frame| self.number(earlier.name(frame))).collect();
            let index = *known.entry(frames.clone()).or_insert(self.stacks.len());
            if index == self.stacks.len() {
                self.stacks.push(Stack { frames, value: 0, before: 0 });
            }
            self.stacks[index].before = stack.value;
        }
        self.is_compared = true;
        self.sort();
        Ok(())
    }

    pub(super) fn name(&self, number: u32) -> &str {
        &self.names[number as usize]
    }

    fn number(&mut self, name: &str) -> u32 {
        if let Some(&number) = self.numbers.get(name) {
            return number;
        }
        let number = self.names.len() as u32;
        self.names.push(name.to_owned());
        self.numbers.insert(name.to_owned(), number);
        number
    }

    /// The same file gives the same text.
    fn sort(&mut self) {
        let names = &self.names;
        self.stacks.sort_by(|one, other| {
            let by_name = |its: &Stack| its.frames.iter().map(|&frame| names[frame as usize].as_str()).collect::<Vec<_>>();
            let change = |its: &Stack| its.value.abs_diff(its.before);
            change(other).cmp(&change(one)).then_with(|| by_name(one).cmp(&by_name(other)))
        });
    }
}

/// Where nothing has a name: the file, and the place in it.
fn address<'a>(location: &proto::Location, mapping: Option<&proto::Mapping>, text: &impl Fn(i64) -> &'a str) -> String {
    let name = mapping.map_or("", |its| text(its.filename));
    let name = Path::new(name).file_name().map_or(name.into(), |name| name.to_string_lossy());
    match mapping.filter(|its| !name.is_empty() && location.address >= its.memory_start) {
        Some(its) => format!("{name}+{:#x}", (location.address - its.memory_start).wrapping_add(its.file_offset)),
        None => format!("{:#x}", location.address),
    }
}
