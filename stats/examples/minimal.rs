//! The least there is: works a little, and says what that did to the heap.
//!
//! ```text
//! $ cargo run -p freestone-stats --example minimal
//! in 0.107 s: 377779 allocations (3.5 M/s), 15.4 MiB (144.3 MiB/s); 266089 frees (2.5 M/s); live +7.6 MiB; 7 OS calls
//! freestone: 7.6 MiB live in 111692 blocks
//!   live                7.6 MiB   the program has it
//!   thread caches      21.3 KiB   free, at hand for the thread that freed it
//!   depots            442.0 KiB   free, on its way between threads
//!   holes             459.0 KiB   free, in spans that are in use
//!   dirty               5.4 MiB   free pages that still hold memory
//!   metadata          341.5 KiB   for the allocator itself
//!   = committed        14.2 MiB   the most of it that can be resident
//!   released            1.5 MiB   address space without memory
//!   …
//! ```

use freestone::Freestone;

#[global_allocator]
static GLOBAL: Freestone = Freestone::new();

fn main() {
    let before = freestone_stats::snapshot();
    let mut words: Vec<String> = (0..200_000).map(|number| number.to_string().repeat(number % 9)).collect();
    words.sort();
    words.dedup();
    words.retain(|word| word.len() % 3 == 0);
    let after = freestone_stats::snapshot();
    println!("{}", after.since(&before));
    print!("{after}");
    println!("{} words kept", words.len());
}
