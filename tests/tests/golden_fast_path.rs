//! What an allocation and a free cost when nothing special happens, counted in instructions, in a program built as users build it. A change that makes
//! the fast path longer, or puts a call or a locked instruction on it, is noticed here and not months later in a benchmark.
//!
//! The fast path is found by following every way from a function's entry: those that end in `ret` without having called anything are its fast
//! paths; those that call or jump elsewhere lead to the slow one. Of the fast ones the longest counts.

use std::fmt::Write;

use freestone_tests::{Build, build};
use iced_x86::{Decoder, DecoderOptions, FlowControl, Formatter, GasFormatter, Instruction, Mnemonic, OpKind};
use object::{Object, ObjectSection, ObjectSymbol};

/// The instructions of a function, from its symbol to its end.
struct Function {
    name: String,
    start: u64,
    code: Vec<u8>,
}

impl Function {
    fn find(file: &object::File<'_>, name: &str) -> Self {
        let symbol =
            file.symbols().find(|symbol| symbol.name() == Ok(name)).unwrap_or_else(|| panic!("{name} is not in the program"));
        let section = file.section_by_index(symbol.section_index().expect("a function has a section")).expect("that exists");
        let code = section.data_range(symbol.address(), symbol.size()).expect("readable").expect("within the section");
        assert!(!code.is_empty(), "{name} has no instructions");
        Self { name: name.to_owned(), start: symbol.address(), code: code.to_vec() }
    }

    fn at(&self, address: u64) -> Option<Instruction> {
        let offset = usize::try_from(address.checked_sub(self.start)?).ok()?;
        let code = self.code.get(offset..).filter(|code| !code.is_empty())?;
        Some(Decoder::with_ip(64, code, address, DecoderOptions::NONE).decode())
    }

    /// Every way from the entry to a `ret`, without the `ret`.
    fn fast_paths(&self) -> Vec<Vec<Instruction>> {
        let mut found = Vec::new();
        let mut ways = vec![(self.start, Vec::<Instruction>::new())];
        while let Some((address, mut way)) = ways.pop() {
            // Somewhere else, or in a circle: not a fast path.
            let Some(instruction) = self.at(address) else { continue };
            if way.iter().any(|earlier| earlier.ip() == address) {
                continue;
            }
            match instruction.flow_control() {
                FlowControl::Return => found.push(way),
                FlowControl::Next => {
                    way.push(instruction);
                    ways.push((instruction.next_ip(), way));
                }
                FlowControl::UnconditionalBranch => {
                    way.push(instruction);
                    ways.push((instruction.near_branch_target(), way));
                }
                FlowControl::ConditionalBranch => {
                    way.push(instruction);
                    ways.push((instruction.near_branch_target(), way.clone()));
                    ways.push((instruction.next_ip(), way));
                }
                // Calls, indirect jumps, traps.
                _ => {}
            }
        }
        found
    }

    /// Asserts that the longest fast path is no longer than this, and calls and locks nothing.
    fn check(&self, most: usize) {
        let paths = self.fast_paths();
        let fast = paths.iter().max_by_key(|path| path.len()).unwrap_or_else(|| panic!("{} has no way to `ret`", self.name));
        let listing = listing(fast);
        println!("{}: {} instructions on the fast path, {} ways to it\n{listing}", self.name, fast.len(), paths.len());
        assert!(fast.len() <= most, "{}: {} instructions, {most} are allowed:\n{listing}", self.name, fast.len());
        for instruction in paths.iter().flatten() {
            assert!(!instruction.has_lock_prefix(), "{}: a locked instruction:\n{listing}", self.name);
            let touches_memory = instruction.op_kinds().any(|kind| kind == OpKind::Memory);
            let exchanges = instruction.mnemonic() == Mnemonic::Xchg && touches_memory;
            assert!(!exchanges, "{}: an exchange with memory locks too:\n{listing}", self.name);
        }
    }
}

fn listing(path: &[Instruction]) -> String {
    let mut formatter = GasFormatter::new();
    path.iter().fold(String::new(), |mut text, instruction| {
        let mut line = String::new();
        formatter.format(instruction, &mut line);
        writeln!(text, "    {:#x}  {line}", instruction.ip()).expect("a string takes it");
        text
    })
}

#[test]
fn few_instructions_no_call_no_lock() {
    if cfg!(not(target_arch = "x86_64")) {
        println!("SKIPPED: instructions are counted on x86-64 only");
        return;
    }
    let program = std::fs::read(build("golden_fast_path", Build::Release)).expect("it was built");
    let file = object::File::parse(program.as_slice()).expect("an executable");
    for (size, to_allocate, to_free) in [
        // Two arrays.
        (64, 8, 11),
        (1024, 8, 11),
        // One stack, which also counts down, and knows which blocks are zero.
        (4096, 14, 12),
        (32 << 10, 14, 12),
    ] {
        Function::find(&file, &format!("golden_alloc_{size}")).check(to_allocate);
        Function::find(&file, &format!("golden_free_{size}")).check(to_free);
    }
}

/// The reading itself, on made-up functions.
mod reading {
    use super::Function;

    fn function(code: &[u8]) -> Function {
        Function { name: "made up".to_owned(), start: 0x1000, code: code.to_vec() }
    }

    fn lengths(code: &[u8]) -> Vec<usize> {
        let mut lengths: Vec<usize> = function(code).fast_paths().iter().map(Vec::len).collect();
        lengths.sort_unstable();
        lengths
    }

    const NOP: u8 = 0x90;
    const RET: u8 = 0xc3;

    #[test]
    fn follows_every_way() {
        assert_eq!(lengths(&[NOP, NOP, RET]), [2]);
        // je over a nop: two ways.
        assert_eq!(lengths(&[0x74, 1, NOP, RET]), [1, 2]);
        // je to a call: only the other way is fast.
        assert_eq!(lengths(&[0x74, 1, RET, 0xe8, 0, 0, 0, 0, RET]), [1]);
        // A jump out of the function, conditional or not, leads elsewhere.
        assert_eq!(lengths(&[0x0f, 0x84, 0, 1, 0, 0, RET]), [1]);
        assert_eq!(lengths(&[0xe9, 0, 1, 0, 0]), [0; 0]);
        // A jump within is one instruction more; a circle has no end.
        assert_eq!(lengths(&[0xeb, 1, NOP, RET]), [1]);
        assert_eq!(lengths(&[0xeb, 0xfe]), [0; 0]);
    }

    #[test]
    #[should_panic(expected = "2 instructions, 1 are allowed")]
    fn counts() {
        function(&[NOP, NOP, RET]).check(1);
    }

    #[test]
    #[should_panic(expected = "a locked instruction")]
    fn sees_locks() {
        // lock incl (%rax)
        function(&[0xf0, 0xff, 0x00, RET]).check(8);
    }

    #[test]
    #[should_panic(expected = "an exchange with memory")]
    fn sees_exchanges() {
        // xchg %rax,(%rcx)
        function(&[0x48, 0x87, 0x01, RET]).check(8);
    }

    #[test]
    #[should_panic(expected = "has no way to `ret`")]
    fn sees_that_there_is_no_fast_path() {
        function(&[0xe8, 0, 0, 0, 0, RET]).check(8);
    }
}
