//! A profile as a tree of functions, for the flame graph of the live page: calls with the same names below the same names are one node.
//!
//! ```text
//!   names   ["all", "main", "orders::parse", …]
//!   parents [0, 0, 1, …]          node 0 is everything; a parent stands before its children
//!   name    [0, 1, 2, …]          what a node is called: a position in names
//!   values  [[…], …]              a list for each column: what the node and everything it called stand for
//!   errors  [[…], …]              standard errors of these
//! ```
//!
//! The tree is bounded: of one with more nodes the smallest are left out. What they stand for remains in their parents.

use std::collections::HashMap;
use std::time::SystemTime;

use serde::Serialize;

use super::naming;
use crate::json;
use crate::profile::{self, Context, Kind, Profile, VALUES_MAX};

/// The profiles that can be drawn.
pub(super) const PROFILES: &[&str] = &["heap", "peak", "lifetimes", "fragmentation", "contention"];

/// Nodes of a tree; a screen shows fewer.
const NODES_MAX: usize = 6000;

/// The tree of a profile of this moment.
pub(super) fn json(kind: &str) -> String {
    let kind = Kind::of_name(kind).unwrap_or(Kind::Heap);
    let profile = profile::take(kind);
    naming::with(|names| {
        // String keys and finite numbers: this cannot fail.
        serde_json::to_string(&Tree::of(&profile, names).document(&profile, NODES_MAX)).unwrap_or_default()
    })
}

#[derive(Serialize)]
struct Document<'a> {
    version: u32,
    taken_unix_ms: u64,
    profile: &'static str,
    columns: Vec<Column>,
    default_column: usize,
    /// Bytes between two samples on average; 0: sampling is off.
    interval_bytes: usize,
    samples: u64,
    /// Samples of blocks that are not in what is in use, because nobody would see their end.
    untracked: u64,
    stacks: usize,
    names: Vec<&'a str>,
    parents: Vec<u32>,
    name: Vec<u32>,
    values: Vec<Vec<i64>>,
    errors: Vec<Vec<i64>>,
    nodes_left_out: usize,
}

#[derive(Serialize)]
struct Column {
    name: &'static str,
    unit: &'static str,
    exact: Option<i64>,
}

struct Tree {
    names: Vec<String>,
    nodes: Vec<Node>,
}

#[derive(Clone, Copy)]
struct Node {
    parent: u32,
    name: u32,
    values: [f64; VALUES_MAX],
    variances: [f64; VALUES_MAX],
}

impl Node {
    const fn new(parent: u32, name: u32) -> Self {
        Self { parent, name, values: [0.0; VALUES_MAX], variances: [0.0; VALUES_MAX] }
    }
}

impl Tree {
    fn of(profile: &Profile, context: &mut Context<'_>) -> Self {
        let mut names = Numbers::default();
        // Every address is named once: the functions at it, outermost first.
        let mut functions = Vec::with_capacity(profile.addresses().len());
        for &address in profile.addresses() {
            let inlined = context.name(address.saturating_sub(1));
            functions
                .push(inlined.iter().rev().map(|frame| names.number(naming::one_line(&frame.function))).collect::<Vec<u32>>());
        }
        let mut nodes = vec![Node::new(0, names.number("all".to_owned()))];
        let mut known: HashMap<(u32, u32), u32> = HashMap::new();
        for row in &profile.rows {
            let mut at = 0;
            let pass = |at: u32, nodes: &mut Vec<Node>| {
                let node = &mut nodes[at as usize];
                for value in 0..VALUES_MAX {
                    node.values[value] += row.values[value];
                    node.variances[value] += row.errors[value] * row.errors[value];
                }
            };
            pass(at, &mut nodes);
            for &name in profile.frame_indices(row).rev().flat_map(|index| &functions[index]) {
                at = *known.entry((at, name)).or_insert_with(|| {
                    nodes.push(Node::new(at, name));
                    nodes.len() as u32 - 1
                });
                pass(at, &mut nodes);
            }
        }
        Self { names: names.names, nodes }
    }

    /// The largest nodes. A parent is as large as its children in every column, so no kept node's parent is left out.
    fn largest(&self, nodes_max: usize) -> Vec<usize> {
        let mut kept: Vec<usize> = (0..self.nodes.len()).collect();
        if kept.len() > nodes_max {
            let all = self.nodes[0].values;
            let share = |node: &Node| (0..VALUES_MAX).map(|value| node.values[value] / all[value].max(1.0)).fold(0.0, f64::max);
            let shares: Vec<f64> = self.nodes.iter().map(share).collect();
            kept.sort_by(|&a, &b| shares[b].total_cmp(&shares[a]).then(a.cmp(&b)));
            kept.truncate(nodes_max);
            kept.sort_unstable();
        }
        kept
    }

    fn document(&self, profile: &Profile, nodes_max: usize) -> Document<'_> {
        let kept = self.largest(nodes_max);
        let mut places = vec![0_u32; self.nodes.len()];
        for (place, &node) in kept.iter().enumerate() {
            places[node] = place as u32;
        }
        let mut names = Vec::new();
        let mut name_places = HashMap::new();
        let name = kept.iter().map(|&node| {
            let name = self.nodes[node].name;
            *name_places.entry(name).or_insert_with(|| {
                names.push(self.names[name as usize].as_str());
                names.len() as u32 - 1
            })
        });
        let name: Vec<u32> = name.collect();
        let kind = profile.kind;
        let types = kind.value_types();
        let column =
            |of: &dyn Fn(&Node) -> f64| kept.iter().map(|&node| of(&self.nodes[node]).round() as i64).collect::<Vec<i64>>();
        Document {
            version: json::VERSION,
            taken_unix_ms: profile.taken.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64),
            profile: kind.name(),
            columns: types
                .iter()
                .zip(profile.exact.totals)
                .map(|(of, exact)| Column { name: of.name, unit: of.unit, exact })
                .collect(),
            default_column: kind.default_value(),
            interval_bytes: profile.summary.interval,
            samples: profile.rows.iter().map(|row| row.samples).sum(),
            untracked: profile.summary.untracked,
            stacks: profile.rows.len(),
            names,
            parents: kept.iter().map(|&node| places[self.nodes[node].parent as usize]).collect(),
            name,
            values: (0..types.len()).map(|value| column(&|node| node.values[value])).collect(),
            errors: (0..types.len()).map(|value| column(&|node| node.variances[value].sqrt())).collect(),
            nodes_left_out: self.nodes.len() - kept.len(),
        }
    }
}

/// Names, each once.
#[derive(Default)]
struct Numbers {
    names: Vec<String>,
    numbers: HashMap<String, u32>,
}

impl Numbers {
    fn number(&mut self, name: String) -> u32 {
        let next = self.names.len() as u32;
        *self.numbers.entry(name).or_insert_with_key(|name| {
            self.names.push(name.clone());
            next
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::{Builder, Frame, Row};

    fn function(address: usize) -> Vec<Frame> {
        // Two addresses of one function, and one with a function inlined.
        let names: &[&str] = match address + 1 {
            1 => &["main"],
            2 | 3 => &["parse"],
            4 => &["inner", "parse"],
            _ => &[],
        };
        names.iter().map(|name| Frame { function: (*name).to_owned(), ..Frame::default() }).collect()
    }

    fn tree(profile: &Profile) -> Tree {
        let mut namer = function;
        Tree::of(profile, &mut Context { namer: Some(&mut namer), ..Context::default() })
    }

    fn path(document: &Document<'_>, mut node: usize) -> String {
        let mut path = Vec::new();
        while node > 0 {
            path.push(document.names[document.name[node] as usize]);
            node = document.parents[node] as usize;
        }
        path.reverse();
        path.join(";")
    }

    #[test]
    fn calls_of_the_same_names_are_one() {
        let mut builder = Builder::new(Kind::Heap);
        for (bytes, frames) in [(100.0, [2, 1]), (20.0, [3, 1]), (3.0, [4, 1]), (0.4, [9, 1])] {
            let mut row = Row::default();
            (row.samples, row.values, row.errors) = (1, [1.0, 2.0 * bytes, 1.0, bytes], [3.0, 4.0, 3.0, 4.0]);
            builder.push(row, &frames);
        }
        let profile = builder.finish();
        let tree = tree(&profile);
        let document = tree.document(&profile, NODES_MAX);
        let found: Vec<(String, i64, i64)> = (0..document.name.len())
            .map(|node| (path(&document, node), document.values[3][node], document.errors[3][node]))
            .collect();
        let expected = [("", 123, 8), ("main", 123, 8), ("main;parse", 123, 7), ("main;parse;inner", 3, 4), ("main;0x8", 0, 4)];
        assert_eq!(found, expected.map(|(path, value, error)| (path.to_owned(), value, error)));
        assert_eq!((document.samples, document.stacks, document.default_column, document.nodes_left_out), (4, 4, 3, 0));
    }

    #[test]
    fn large_trees_lose_their_smallest_nodes() {
        let mut builder = Builder::new(Kind::Peak);
        for stack in 0..1000_usize {
            let bytes = ((stack * 7919) % 1000) as f64;
            let mut row = Row::default();
            (row.samples, row.values) = (1, [1.0, bytes, 0.0, 0.0]);
            builder.push(row, &[100_000 + stack, 10_000 + stack / 10, 1]);
        }
        let profile = builder.finish();
        let tree = tree(&profile);
        assert_eq!(tree.nodes.len(), 1 + 1 + 100 + 1000);
        let document = tree.document(&profile, 300);
        assert_eq!((document.parents.len(), document.nodes_left_out), (300, 802));
        assert_eq!(document.values[1][0], 999 * 500, "nothing is lost from the whole");
        for node in 1..300 {
            let parent = document.parents[node] as usize;
            assert!(parent < node, "parents stand first");
            assert!(
                document.values[1][parent] >= document.values[1][node],
                "a child of more than its parent: {}",
                path(&document, node)
            );
        }
        let smallest = document.values[1].iter().min().copied();
        let leaves = (0..1000).filter(|bytes| Some(*bytes) > smallest).count();
        assert!((190..=200).contains(&leaves), "the largest {leaves} of 1000 leaves are kept");
    }
}
