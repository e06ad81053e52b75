//! A small program, as most are: a few hundred blocks of mixed sizes, and nothing else.

use std::fmt::Write;
use std::hint::black_box;

use crate::{Random, resident_anonymous_bytes};

/// Keeps blocks of mixed sizes, together as many bytes as the first argument says, and prints how much anonymous memory the process has then. What
/// it needs beside the blocks is on the stack, and the same whatever the argument.
///
/// # Panics
///
/// When the argument is missing or not a number.
pub fn run_small_program() {
    let live = std::env::args().nth(1).and_then(|live| live.parse().ok()).expect("how many bytes?");
    let mut blocks: [Option<Box<[u8]>>; 1024] = [const { None }; 1024];
    let mut random = Random::new(3);
    let mut bytes = 0_usize;
    for place in black_box(&mut blocks) {
        if bytes >= live {
            break;
        }
        // Many small ones, few large ones.
        let most = 1 << (4 + random.below(7));
        let block = vec![1_u8; 8 + random.below(most)].into_boxed_slice();
        bytes += block.len();
        *place = Some(block);
    }
    assert!(bytes >= live, "too many blocks for the list");
    let resident = resident_anonymous_bytes();
    let mut line = Line { bytes: [0; 64], length: 0 };
    writeln!(line, "{resident}").expect("a number is short");
    // SAFETY: the line is readable.
    unsafe { libc::write(1, line.bytes.as_ptr().cast(), line.length) };
    black_box(&blocks);
}

/// A line on the stack: printing would need a block.
struct Line {
    bytes: [u8; 64],
    length: usize,
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let place = self.bytes.get_mut(self.length..self.length + text.len()).ok_or(std::fmt::Error)?;
        place.copy_from_slice(text.as_bytes());
        self.length += text.len();
        Ok(())
    }
}
