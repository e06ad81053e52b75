//! Works a little, and says where every byte of the process is. What comes out, and what each line means, is in `docs/ledger.md`.

use freestone::Freestone;

#[global_allocator]
static GLOBAL: Freestone = Freestone::new();

fn main() {
    let words: Vec<String> = (0..200_000).map(|number| number.to_string().repeat(number % 9)).collect();
    let kept: Vec<String> = words.into_iter().filter(|word| word.len() % 3 == 0).collect();
    print!("{}", freestone_stats::ledger());
    for thread in freestone_stats::threads() {
        println!("{thread}");
    }
    println!("{} words kept", kept.len());
}
