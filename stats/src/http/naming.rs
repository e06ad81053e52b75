//! What addresses and tags are called, for what is shown to people.

use crate::names::{Symbols, mappings};
use crate::profile::Context;

/// Does something that needs names. They are looked up as they are asked for, and forgotten at the end; no profile sees what that takes.
pub(super) fn with<R>(work: impl FnOnce(&mut Context<'_>) -> R) -> R {
    freestone::profile::without_samples(|| {
        let mut symbols = Symbols::new();
        let mappings = mappings();
        let tags = |id| crate::tag::name(id).map(str::to_owned);
        work(&mut Context { namer: Some(&mut symbols), mappings: &mappings, tags: Some(&tags) })
    })
}

/// A name as it may stand in a line of text, whatever a binary says.
pub(super) fn one_line(name: &str) -> String {
    name.chars().filter(|letter| !letter.is_control()).collect()
}

/// The name of the function that an address lies in; `None` where there is no more to say than where that is.
pub(super) fn known(names: &mut Context<'_>, address: u64) -> Option<String> {
    let namer = names.namer.as_mut()?;
    let function = namer.name(usize::try_from(address).ok()?).into_iter().next()?.function;
    (!function.is_empty()).then(|| one_line(&function))
}
