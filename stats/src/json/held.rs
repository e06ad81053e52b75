//! Who holds what, in the document's words: tags, leaks, advice, and whether samples can be believed.

use serde::{Deserialize, Serialize};

use crate::frames::Names;
use crate::{advice, agreement, leaks, tag};

/// What is on account of a tag: see [`crate::tag::TagStats`].
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Tag {
    /// Its number, as in profiles.
    pub id: u32,
    /// Its name.
    pub name: String,
    /// Scopes that began.
    pub enters: u64,
    /// Blocks allocated in its scopes, without those within.
    pub allocations: u64,
    /// Their bytes.
    pub allocated_bytes: u64,
    /// Blocks allocated in its scopes and all within.
    pub total_allocations: u64,
    /// Their bytes.
    pub total_allocated_bytes: u64,
    /// What of all this is still there, by samples.
    pub live_bytes: f64,
    /// The standard error of that.
    pub live_error_bytes: f64,
    /// Samples that it stands on.
    pub live_samples: u64,
}

impl Tag {
    fn of(stats: &tag::TagStats) -> Self {
        Self {
            id: stats.tag.id(),
            name: stats.name.to_owned(),
            enters: stats.enters,
            allocations: stats.allocations,
            allocated_bytes: stats.allocated_bytes,
            total_allocations: stats.total_allocations,
            total_allocated_bytes: stats.total_allocated_bytes,
            live_bytes: finite(stats.live.bytes),
            live_error_bytes: finite(stats.live_error_bytes()),
            live_samples: stats.live.samples,
        }
    }
}

/// All tags, the one that allocated most first.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Tags {
    /// The tags.
    pub tags: Vec<Tag>,
    /// How often a name was one too many, and counted under `other`.
    pub refused: u64,
}

impl Tags {
    /// As they are now.
    #[must_use]
    pub fn now() -> Self {
        Self { tags: tag::tags().iter().map(Tag::of).collect(), refused: tag::refused() }
    }

    /// As text.
    #[must_use]
    pub fn to_json(&self) -> String {
        super::text(self)
    }
}

/// A frame of a stack.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Frame {
    /// The return address, in hexadecimal digits: JavaScript would round the number.
    pub address: String,
    /// A function, or a file and how far behind its beginning.
    pub name: String,
}

fn frames(addresses: &[usize], names: &mut Names) -> Vec<Frame> {
    addresses.iter().map(|&address| Frame { address: format!("{address:#x}"), name: names.name(address) }).collect()
}

/// A call site that has more than it had: see [`crate::leaks::Growth`].
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Growth {
    /// `leak`, or why it is none: `slight`, `stopped`, `lifetimes`, `replacement`, `levels_off`, `recent`, `steps` or `load`.
    pub kind: String,
    /// `low`, `medium` or `high`.
    pub confidence: String,
    /// The tag it allocates under.
    pub tag: Option<String>,
    /// Bytes of each of its blocks. `None`: they differ.
    pub block_bytes: Option<u64>,
    /// By how many bytes it has grown.
    pub grown_bytes: f64,
    /// The standard error of that.
    pub error_bytes: f64,
    /// By how many blocks.
    pub grown_blocks: f64,
    /// How much of this survives.
    pub surviving_bytes: f64,
    /// How much an hour that makes.
    pub bytes_per_hour: f64,
    /// The standard error of that.
    pub error_per_hour: f64,
    /// Its part in all growth.
    pub share: f64,
    /// What it has.
    pub live_bytes: f64,
    /// What it allocated meanwhile.
    pub allocated_bytes: f64,
    /// Samples by which it has grown.
    pub samples: u64,
    /// How long ago it was seen first.
    pub age_seconds: f64,
    /// How long blocks lived that ended meanwhile.
    pub lifetime_seconds: Option<f64>,
    /// What survives, in standard errors.
    pub score: f64,
    /// Moments that it was seen at.
    pub readings: u64,
    /// Its stack, innermost first.
    pub frames: Vec<Frame>,
}

impl Growth {
    /// In the document's words.
    #[must_use]
    pub fn of(growth: &leaks::Growth) -> Self {
        Self::named(growth, &mut Names::new())
    }

    pub(super) fn named(growth: &leaks::Growth, names: &mut Names) -> Self {
        Self {
            kind: growth.kind.key().to_owned(),
            confidence: growth.confidence.key().to_owned(),
            tag: tag::name(growth.tag).map(str::to_owned),
            block_bytes: growth.block_bytes.map(|bytes| bytes as u64),
            grown_bytes: finite(growth.grown_bytes),
            error_bytes: finite(growth.error_bytes),
            grown_blocks: finite(growth.grown_blocks),
            surviving_bytes: finite(growth.surviving_bytes),
            bytes_per_hour: finite(growth.bytes_per_hour),
            error_per_hour: finite(growth.error_per_hour),
            share: finite(growth.share),
            live_bytes: finite(growth.live_bytes),
            allocated_bytes: finite(growth.allocated_bytes),
            samples: growth.samples,
            age_seconds: growth.age.as_secs_f64(),
            lifetime_seconds: growth.lifetime.map(|lifetime| lifetime.as_secs_f64()),
            score: finite(growth.score),
            readings: growth.readings as u64,
            frames: frames(&growth.frames, names),
        }
    }
}

/// What [`crate::leaks()`] found.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Leaks {
    /// From the earlier moment to the later one.
    pub interval_seconds: f64,
    /// Sites that leak, the worst first.
    pub leaks: Vec<Growth>,
    /// Sites that have grown for other reasons.
    pub others: Vec<Growth>,
    /// Call sites that were looked at.
    pub sites: u64,
    /// Samples there were meanwhile.
    pub samples: u64,
    /// Bytes between two samples; 0: sampling is off.
    pub sample_interval_bytes: u64,
}

impl Leaks {
    /// In the document's words.
    #[must_use]
    pub fn of(found: &leaks::Leaks) -> Self {
        let mut names = Names::new();
        Self {
            interval_seconds: found.interval.as_secs_f64(),
            leaks: found.leaks.iter().map(|leak| Growth::named(leak, &mut names)).collect(),
            others: found.others.iter().map(|other| Growth::named(other, &mut names)).collect(),
            sites: found.sites as u64,
            samples: found.samples,
            sample_interval_bytes: found.sample_interval as u64,
        }
    }

    /// As text.
    #[must_use]
    pub fn to_json(&self) -> String {
        super::text(self)
    }
}

/// What could be better at a call site: see [`crate::advice::Item`].
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct AdviceItem {
    /// `count`, `bytes`, `temporary`, `growth` or `slack`.
    pub kind: String,
    /// `medium` or `high`.
    pub confidence: String,
    /// What there is, in a sentence.
    pub sentence: String,
    /// What to do about it, in a sentence.
    pub advice: String,
    /// Its part in all blocks or bytes.
    pub share: f64,
    /// Blocks it is about.
    pub blocks: f64,
    /// Their bytes.
    pub bytes: f64,
    /// The standard error of those.
    pub error_bytes: f64,
    /// Samples that it stands on.
    pub samples: u64,
    /// Bytes of each of its blocks. `None`: they differ.
    pub block_bytes: Option<u64>,
    /// The tag it allocates under.
    pub tag: Option<String>,
    /// Its stack, innermost first.
    pub frames: Vec<Frame>,
}

/// What [`crate::advice()`] found.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Advice {
    /// By kind, and of each kind that with the largest share first.
    pub items: Vec<AdviceItem>,
    /// Call sites that were looked at.
    pub sites: u64,
    /// Samples that all of it stands on.
    pub samples: u64,
    /// Bytes between two samples; 0: sampling is off.
    pub sample_interval_bytes: u64,
}

impl Advice {
    /// In the document's words.
    #[must_use]
    pub fn of(found: &advice::Advice) -> Self {
        let mut names = Names::new();
        let items = found.items.iter().map(|item| AdviceItem {
            kind: item.kind.key().to_owned(),
            confidence: item.confidence.key().to_owned(),
            sentence: item.sentence.clone(),
            advice: item.advice.clone(),
            share: finite(item.share),
            blocks: finite(item.blocks),
            bytes: finite(item.bytes),
            error_bytes: finite(item.error_bytes),
            samples: item.samples,
            block_bytes: item.block_bytes.map(|bytes| bytes as u64),
            tag: tag::name(item.tag).map(str::to_owned),
            frames: frames(&item.frames, &mut names),
        });
        Self {
            items: items.collect(),
            sites: found.sites as u64,
            samples: found.samples,
            sample_interval_bytes: found.sample_interval as u64,
        }
    }

    /// As text.
    #[must_use]
    pub fn to_json(&self) -> String {
        super::text(self)
    }
}

/// An estimate, and what it should be.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Compared {
    /// By samples.
    pub sampled: f64,
    /// The standard error of that.
    pub error: f64,
    /// By counters.
    pub exact: u64,
    /// How many standard errors lie between the two.
    pub deviation: f64,
    /// No more than chance may bring about.
    pub agrees: bool,
}

impl Compared {
    fn of(compared: &agreement::Compared) -> Self {
        Self {
            sampled: finite(compared.sampled),
            error: finite(compared.error),
            exact: compared.exact,
            deviation: finite(compared.deviation),
            agrees: compared.agrees(),
        }
    }
}

/// Whether samples can be believed: see [`crate::Agreement`].
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Agreement {
    /// All agree.
    pub holds: bool,
    /// Whether they agree, in a sentence.
    pub sentence: String,
    /// Bytes between two samples; 0: sampling is off.
    pub sample_interval_bytes: u64,
    /// Bytes ever allocated.
    pub allocated_bytes: Compared,
    /// Blocks ever allocated.
    pub allocations: Compared,
    /// Bytes that live. `None`: of some samples nobody knows whether they do.
    pub live_bytes: Option<Compared>,
    /// Samples by the profiler's own count.
    pub samples: u64,
    /// The same by the counter of the probe `sample`.
    pub sample_probes: u64,
    /// Ends of samples by the profiler's own count.
    pub ends: u64,
    /// The same by the counter of the probe `sample_end`.
    pub end_probes: u64,
    /// Samples that were taken, and not recorded.
    pub lost: u64,
}

impl Agreement {
    /// In the document's words.
    #[must_use]
    pub fn of(found: &agreement::Agreement) -> Self {
        Self {
            holds: found.holds(),
            sentence: found.sentence(),
            sample_interval_bytes: found.sample_interval as u64,
            allocated_bytes: Compared::of(&found.allocated_bytes),
            allocations: Compared::of(&found.allocations),
            live_bytes: found.live_bytes.as_ref().map(Compared::of),
            samples: found.samples,
            sample_probes: found.sample_probes,
            ends: found.ends,
            end_probes: found.end_probes,
            lost: found.lost,
        }
    }
}

/// JSON has no other numbers.
fn finite(number: f64) -> f64 {
    if number.is_finite() { number } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_finite_can_be_read_back() {
        let mut found = agreement::Agreement::default();
        (found.allocated_bytes.deviation, found.allocated_bytes.sampled) = (f64::INFINITY, f64::NAN);
        let text = crate::json::text(&Agreement::of(&found));
        let read: Agreement = serde_json::from_str(&text).expect("what was written can be read");
        assert!(!read.holds || read.allocated_bytes.agrees);
        assert!(read.sentence.starts_with("Sampling is off"));
        assert_eq!(Tags::now().to_json().find("\"tags\":"), Some(1));
    }
}
