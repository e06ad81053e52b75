//! The least there is: works a little, and says what that did to the heap.
//!
//! ```text
//! $ cargo run -p freestone-stats --example minimal
//! OUTPUT
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
