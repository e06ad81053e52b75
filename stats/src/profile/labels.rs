//! Names of a profile's frames, asked for once each.

use super::{Context, Profile, Row};

/// Names of frames, as one piece of a folded line each: functions that were inlined there come after the one they were inlined into, `outer;inner`.
pub(super) struct Labels<'a, 'b> {
    profile: &'a Profile,
    context: &'a mut Context<'b>,
    /// By index of the address; empty until somebody asks.
    known: Vec<Box<str>>,
}

/// Stands for what is missing where a stack was cut off.
pub(super) const CUT: &str = "[cut]";

impl<'a, 'b> Labels<'a, 'b> {
    pub(super) fn new(profile: &'a Profile, context: &'a mut Context<'b>) -> Self {
        Self { profile, context, known: vec![Box::default(); profile.addresses().len()] }
    }

    /// A stack, root first, as `a;b;c`.
    pub(super) fn folded(&mut self, row: &Row, line: &mut String) {
        line.clear();
        if self.profile.is_cut(row) {
            line.push_str(CUT);
        }
        for index in self.profile.frame_indices(row).rev() {
            if !line.is_empty() {
                line.push(';');
            }
            line.push_str(self.of(index));
        }
        if line.is_empty() {
            line.push_str("[unknown]");
        }
    }

    /// What the address with this index is called.
    fn of(&mut self, index: usize) -> &str {
        if self.known[index].is_empty() {
            let frames = self.context.name(call_of(self.profile.addresses()[index]));
            let names: Vec<String> = frames.iter().rev().map(|frame| without_separators(&frame.function)).collect();
            self.known[index] = names.join(";").into_boxed_str();
        }
        &self.known[index]
    }
}

/// The address of a call, of its return address: the byte before that lies within it.
pub(super) const fn call_of(return_address: usize) -> usize {
    return_address.saturating_sub(1)
}

/// `[u8; 4]` has what stands between frames, and no way to say otherwise is known to those who read it.
fn without_separators(name: &str) -> String {
    name.chars()
        .map(|c| {
            if c == ';' {
                ':'
            } else if c.is_control() {
                ' '
            } else {
                c
            }
        })
        .collect()
}
