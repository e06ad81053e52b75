use super::*;

// What scopes count is tested in `tests/tags.rs`, on Freestone: here there are no counts.

#[test]
fn names_are_found_again_and_cut() {
    let ingest = Tag::new("ingest");
    assert_eq!(Tag::from(&"ingest".to_owned()), ingest);
    assert_eq!(ingest.name(), Some("ingest"));
    assert_eq!(name(ingest.id()), Some("ingest"));
    assert_eq!(format!("{ingest:?}"), "Tag(\"ingest\")");
    assert_eq!(Tag::new(""), Tag::NONE);
    assert_eq!((name(0), name(u32::MAX)), (None, None));
    // In the middle of a letter of two bytes.
    let long = "é".repeat(100);
    assert_eq!(Tag::new(&long).name(), Some(&*"é".repeat(64)));
    assert_eq!(Tag::new(&format!("a{long}")).name().map(str::len), Some(127));
    assert_eq!(Tag::new("other").id(), OTHER);
}

#[test]
fn a_scope_without_counts_is_harmless() {
    let outer = tag("outer");
    let inner = tag("inner");
    drop(outer);
    drop(inner);
    assert!(report().contains("outer") || report().starts_with("no tag"), "{}", report());
}
