//! The reader on a program that runs on Freestone: this one. What it did must be in the numbers and in the text.

use freestone::Freestone;

#[global_allocator]
static GLOBAL: Freestone = Freestone::new();

/// One after the other: each looks at what the whole process does.
#[test]
fn it_says_what_was_done() {
    rates_contain_what_was_done_between();
    the_report_closes_and_names_the_class();
}

fn rates_contain_what_was_done_between() {
    let before = freestone_stats::snapshot();
    let blocks: Vec<Box<[u8; 480]>> = (0..1000).map(|_| Box::new([7; 480])).collect();
    let middle = freestone_stats::snapshot();
    drop(blocks);
    let after = freestone_stats::snapshot();

    let grown = middle.since(&before);
    assert!(grown.allocations >= 1001, "{grown:?}");
    assert!(grown.allocated_bytes >= 480_000, "{grown:?}");
    assert!(grown.live_growth_bytes >= 480_000, "{grown:?}");
    assert!(grown.allocations_per_second() > 0.0);
    let shrunk = after.since(&middle);
    assert!(shrunk.frees >= 1001, "{shrunk:?}");
    assert!(shrunk.live_growth_bytes <= -480_000, "{shrunk:?}");
    assert_eq!(before.since(&after), freestone_stats::Rates::default(), "the wrong way round");
}

fn the_report_closes_and_names_the_class() {
    let blocks: Vec<Vec<u8>> = (0..500).map(|_| vec![7; 20_000]).collect();
    let now = freestone_stats::snapshot();
    let report = now.to_string();
    assert!(report.starts_with("freestone: "), "{report}");
    for word in
        ["live", "thread caches", "depots", "holes", "dirty", "metadata", "= committed", "released", "= reserved", "OS calls"]
    {
        assert!(report.contains(word), "no {word} in\n{report}");
    }
    let class = now.heap.classes.iter().find(|class| class.block_bytes >= 20_000).expect("20,000 B has a class");
    let line = report.lines().find(|line| line.contains(&class.allocations.to_string()) && line.contains("KiB"));
    assert!(line.is_some_and(|line| line.contains(&class.live().to_string())), "{report}");
    assert!(!report.lines().any(|line| line.ends_with(' ')), "{report}");
    drop(blocks);
}
