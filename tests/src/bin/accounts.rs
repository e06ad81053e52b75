//! Compares the accounts with the kernel's: address space to the byte, memory within what the program itself needs. `tests/accounts_balance.rs`
//! runs it, in a process of its own, where nobody else maps anything.

use std::alloc::Layout;

use freestone::control::{release_to_os, sample_after};
use freestone::{Background, Freestone, snapshot};
use freestone_tests::{Random, mapped_bytes, resident_anonymous_bytes};

/// Without a thread of the allocator's own, which would bring a stack.
#[global_allocator]
static GLOBAL: Freestone = Freestone::new().background(Background::Off);

/// What the program has beside the heap: stack, data, and the C library's own.
struct Beside {
    mapped: usize,
    resident: usize,
}

impl Beside {
    fn look(&self, what: &str) {
        // A snapshot allocates nothing.
        let now = snapshot();
        let (mapped, resident) = (mapped_bytes(), resident_anonymous_bytes());
        assert!(!now.approximate, "{what}: {:?}", now.bytes);
        assert_eq!(mapped - self.mapped, now.bytes.reserved(), "{what}: address space, {:?}", now.bytes);
        let most = now.bytes.committed() + self.resident;
        assert!(resident <= most, "{what}: {resident} bytes are resident, {most} are accounted for, {:?}", now.bytes);
    }
}

/// Makes the stack grow as far as it will.
#[inline(never)]
#[expect(clippy::large_stack_arrays, reason = "that is what it is for")]
fn touch_stack() -> usize {
    let mut deep = [0_u8; 512 << 10];
    std::hint::black_box(&mut deep).fill(1);
    deep.iter().map(|&byte| usize::from(byte)).sum()
}

fn main() {
    touch_stack();
    println!("the line buffer is there");
    let mut live: Vec<Vec<u8>> = Vec::with_capacity(20_000);
    let beside = Beside { mapped: mapped_bytes() - snapshot().bytes.reserved(), resident: resident_anonymous_bytes() };
    beside.look("at the start");
    let mut random = Random::new(1);
    for (what, count, least, most) in [
        ("small", 20_000, 1, 1 << 10),
        ("medium", 4_000, 1 << 10, 32 << 10),
        ("whole", 200, 33 << 10, 256 << 10),
        ("runs", 40, 260 << 10, 2 << 20),
        ("huge", 12, 3 << 20, 30 << 20),
    ] {
        live.extend((0..count).map(|_| vec![1; random.spread(least, most)]));
        beside.look(what);
        let mut nth = 0;
        live.retain(|_| {
            nth += 1;
            nth % 3 == 0
        });
        beside.look(&format!("{what}, most of them freed"));
        release_to_os();
        beside.look(&format!("{what}, given back"));
        live.clear();
        beside.look(&format!("{what}, all freed"));
    }
    // A block that grows by moving.
    let mut growing = vec![1_u8; 100 << 10];
    while growing.len() < 200 << 20 {
        let length = growing.len() * 5 / 4;
        growing.resize(length, 1);
        beside.look("growing");
    }
    growing.truncate(3 << 20);
    growing.shrink_to_fit();
    beside.look("shrunk");
    release_to_os();
    beside.look("shrunk and given back");
    drop(growing);
    let layout = Layout::new::<[u8; 5_000]>();
    for nth in 0..500 {
        sample_after(layout, 1 + nth % 3);
        live.push(vec![1; 5_000]);
    }
    beside.look("sampled");
    live.clear();
    beside.look("sampled, all freed");
    release_to_os();
    beside.look("at the end");
    println!("agreed");
}
