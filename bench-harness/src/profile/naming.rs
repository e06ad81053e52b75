//! Addresses of a profile get the names of functions, their files and lines, from the very build of the program that the profile is of.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail, ensure};
use freestone_stats::profile::pprof::proto;

use super::binary::{Code, Frame};

/// Names all that can be named, and says in sentences how much that is.
pub(super) fn name(
    profile: &mut proto::Profile,
    file: &Path,
    binaries: &[PathBuf],
    debug_folders: &[PathBuf],
    force: bool,
) -> Result<String> {
    ensure!(!profile.mapping.is_empty(), "{} does not say which files its addresses come from", file.display());
    let mut said = String::new();
    let mut of_mapping: HashMap<u64, Code> = HashMap::new();
    for path in binaries {
        let code = Code::open(path, debug_folders)?;
        let mapping = wanted(profile, file, &code, force, &mut said)?;
        of_mapping.insert(mapping, code);
    }
    // Libraries, and the program itself: where they were, if they are still the same.
    for mapping in &profile.mapping {
        let path = Path::new(text(profile, mapping.filename));
        let id = text(profile, mapping.build_id);
        if of_mapping.contains_key(&mapping.id) || !path.is_absolute() || id.is_empty() {
            continue;
        }
        if let Some(code) = Code::open(path, debug_folders).ok().filter(|code| code.build_id() == Some(id)) {
            of_mapping.insert(mapping.id, code);
        }
    }
    if of_mapping.is_empty() {
        bail!("none of the files that {} is of is here as the same build; --binary says where the program is", file.display());
    }
    put(profile, &mut of_mapping, &mut said, file);
    Ok(said)
}

fn text(profile: &proto::Profile, index: i64) -> &str {
    usize::try_from(index).ok().and_then(|index| profile.string_table.get(index)).map_or("", |text| text)
}

fn file_name(path: &str) -> &str {
    Path::new(path).file_name().and_then(|name| name.to_str()).unwrap_or(path)
}

/// The mapping that a file was given for: one of the same build; by name only where there are no build ids, or by force.
fn wanted(profile: &proto::Profile, file: &Path, code: &Code, force: bool, said: &mut String) -> Result<u64> {
    let path = code.path.display().to_string();
    if let Some(id) = code.build_id()
        && let Some(same) = profile.mapping.iter().find(|its| text(profile, its.build_id) == id)
    {
        return Ok(same.id);
    }
    let by_name = profile.mapping.iter().find(|its| file_name(text(profile, its.filename)) == file_name(&path));
    let chosen = by_name.unwrap_or(&profile.mapping[0]);
    let (mine, its) = (code.build_id(), text(profile, chosen.build_id));
    let of = match text(profile, chosen.filename) {
        "" => "what the profile is of",
        name => file_name(name),
    };
    if !force {
        match mine {
            Some(mine) if !its.is_empty() => bail!(
                "{path} is another build than {of} in {}: its build id is {mine}, and that one's is {its}; --force uses it all the same",
                file.display()
            ),
            _ if by_name.is_none() => bail!(
                "nothing says that {path} belongs to {}, where {of} is: there is no build id to tell by; --force uses it all the same",
                file.display()
            ),
            _ => {}
        }
    }
    let _ = writeln!(said, "whether {path} is the {of} of {} is not known: their build ids do not say so", file.display());
    Ok(chosen.id)
}

/// What the profile has of a mapping.
#[derive(Default)]
struct Count {
    all: usize,
    named: usize,
    with_lines: usize,
}

fn put(profile: &mut proto::Profile, of_mapping: &mut HashMap<u64, Code>, said: &mut String, file: &Path) {
    let mut strings = Strings::of(&profile.string_table);
    let mut functions: HashMap<(i64, i64), u64> = HashMap::new();
    let mut next_id = profile.function.iter().map(|its| its.id).max().unwrap_or(0);
    let mut counts: BTreeMap<usize, Count> = BTreeMap::new();
    let places: HashMap<u64, usize> = profile.mapping.iter().enumerate().map(|(place, its)| (its.id, place)).collect();
    for location in &mut profile.location {
        let Some(&place) = places.get(&location.mapping_id) else { continue };
        let mapping = &profile.mapping[place];
        let count = counts.entry(place).or_default();
        count.all += 1;
        let into = location.address.checked_sub(mapping.memory_start).filter(|_| location.address < mapping.memory_limit);
        let offset = into.and_then(|into| into.checked_add(mapping.file_offset));
        let frames = match (of_mapping.get_mut(&mapping.id), offset) {
            (Some(code), Some(offset)) => code.frames(offset),
            _ => Vec::new(),
        };
        if frames.is_empty() {
            // What it had before is better than nothing.
            count.named += usize::from(!location.line.is_empty());
            continue;
        }
        count.named += 1;
        count.with_lines += usize::from(frames[0].line > 0);
        location.line.clear();
        for Frame { function, system_name, file, line, column } in frames {
            let (name, filename) = (strings.number(&function), strings.number(&file));
            let id = *functions.entry((name, filename)).or_insert_with(|| {
                next_id += 1;
                let system_name = strings.number(&system_name);
                profile.function.push(proto::Function { id: next_id, name, system_name, filename, start_line: 0 });
                next_id
            });
            location.line.push(proto::Line { function_id: id, line: line.into(), column: column.into() });
        }
    }
    profile.string_table = strings.all;
    for (place, count) in &counts {
        let mapping = &mut profile.mapping[*place];
        mapping.has_functions |= count.named == count.all;
        mapping.has_filenames |= count.with_lines == count.all;
        mapping.has_line_numbers |= count.with_lines == count.all;
        mapping.has_inline_frames |= count.with_lines == count.all;
    }
    let sum = |of: fn(&Count) -> usize| counts.values().map(of).sum::<usize>();
    let (all, named, with_lines) = (sum(|its| its.all), sum(|its| its.named), sum(|its| its.with_lines));
    let _ = writeln!(said, "{}: {named} of {all} addresses have names, and {with_lines} of these lines", file.display());
    for (place, count) in counts.iter().filter(|(_, count)| count.named < count.all) {
        let name = text(profile, profile.mapping[*place].filename);
        let name = if name.is_empty() { "a file without a name" } else { name };
        let _ = writeln!(said, "{} without names are in {name}", count.all - count.named);
    }
}

/// The strings of a profile, each once more to be found.
struct Strings {
    all: Vec<String>,
    numbers: HashMap<String, i64>,
}

impl Strings {
    fn of(all: &[String]) -> Self {
        let numbers = all.iter().enumerate().rev().map(|(number, text)| (text.clone(), number as i64)).collect();
        Self { all: all.to_vec(), numbers }
    }

    fn number(&mut self, text: &str) -> i64 {
        if let Some(&number) = self.numbers.get(text) {
            return number;
        }
        let number = self.all.len() as i64;
        self.all.push(text.to_owned());
        self.numbers.insert(text.to_owned(), number);
        number
    }
}
