//! tmp
use freestone::Freestone;

#[global_allocator]
static GLOBAL: Freestone = Freestone::new();

fn main() {
    let words: Vec<String> = (0..200_000).map(|number| number.to_string().repeat(number % 9)).collect();
    print!("{}", freestone_stats::openmetrics::prometheus_text());
    let began = std::time::Instant::now();
    for _ in 0..1000 {
        std::hint::black_box(freestone_stats::openmetrics::text());
    }
    eprintln!("{:?} each", began.elapsed() / 1000);
    drop(words);
}
