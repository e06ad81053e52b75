use std::path::PathBuf;

use super::super::decode;
use super::*;
use crate::names::Mapping;
use crate::profile::tests::{towers, towers_names};
use crate::profile::{Builder, StallKind, take};

fn mappings() -> Vec<Mapping> {
    let mapping = |start, end, path: &str, is_main: bool| Mapping {
        start,
        end,
        file_offset: 0x1000,
        path: PathBuf::from(path),
        build_id: is_main.then(|| "c0ffee".to_owned()),
        is_main,
        ..Mapping::default()
    };
    vec![mapping(0x100, 0x200, "/lib/libc.so.6", false), mapping(0x1000, 0x9000, "/usr/bin/tower", true)]
}

/// What a string index stands for.
fn text(profile: &proto::Profile, index: i64) -> &str {
    &profile.string_table[usize::try_from(index).expect("an index")]
}

#[test]
fn types_labels_and_periods_are_those_of_go() {
    let profile = decode(&towers().pprof(&mut Context::default())).expect("a profile");
    let types: Vec<_> = profile.sample_type.iter().map(|of| (text(&profile, of.r#type), text(&profile, of.unit))).collect();
    let expected = [("alloc_objects", "count"), ("alloc_space", "bytes"), ("inuse_objects", "count"), ("inuse_space", "bytes")];
    assert_eq!(types, expected);
    assert_eq!(text(&profile, profile.default_sample_type), "inuse_space");
    let period = profile.period_type.expect("a period");
    assert_eq!((text(&profile, period.r#type), text(&profile, period.unit), profile.period), ("space", "bytes", 512 << 10));
    assert_eq!(profile.time_nanos, 1_700_000_000_000_000_000);
    assert_eq!(profile.duration_nanos, 0);

    let first = &profile.sample[0];
    assert_eq!(first.value, [4096, 3_145_664, 4095, 3_145_664]);
    let locations: Vec<u64> = first.location_id.iter().map(|&id| profile.location[id as usize - 1].address).collect();
    assert_eq!(locations, [0x3fff, 0x2fff, 0x1fff], "innermost first, addresses of calls");
    let label = first.label[0];
    assert_eq!((text(&profile, label.key), label.num, text(&profile, label.num_unit)), ("bytes", 768, "bytes"));
    let tag = profile.sample[1].label[1];
    assert_eq!((text(&profile, tag.key), text(&profile, tag.str)), ("tag", "7"));
    assert!(profile.sample[2].label.is_empty(), "blocks of different sizes have no size");
    assert!(profile.mapping.is_empty() && profile.function.is_empty());
    let comments: Vec<_> = profile.comment.iter().map(|&comment| text(&profile, comment)).collect();
    assert!(comments.iter().any(|comment| comment.contains("(exact: 5242944)")), "{comments:?}");
}

#[test]
fn mappings_begin_with_the_program_and_say_what_is_named() {
    let (mappings, mut names) = (mappings(), towers_names);
    let unnamed = decode(&towers().pprof(&mut Context { mappings: &mappings, ..Context::default() })).expect("a profile");
    let main = unnamed.mapping[0];
    assert_eq!((main.id, main.memory_start, main.memory_limit, main.file_offset), (1, 0x1000, 0x9000, 0x1000));
    assert_eq!((text(&unnamed, main.filename), text(&unnamed, main.build_id)), ("/usr/bin/tower", "c0ffee"));
    assert!(!main.has_functions);
    assert!(unnamed.location.iter().all(|location| location.mapping_id == 1 && location.line.is_empty()));

    let tag = |tag: u32| (tag == 7).then(|| "ingest".to_owned());
    let mut context = Context { namer: Some(&mut names), mappings: &mappings, tags: Some(&tag) };
    let named = decode(&towers().pprof(&mut context)).expect("a profile");
    let main = named.mapping[0];
    assert!(main.has_functions && main.has_filenames && main.has_line_numbers && main.has_inline_frames);
    assert!(!named.mapping[1].has_functions, "nothing of it was asked for");
    let inlined = named.location.iter().find(|location| location.address == 0x4fff).expect("a location");
    let lines: Vec<_> = inlined.line.iter().map(|line| (line.function_id, line.line)).collect();
    let name = |id: u64| text(&named, named.function.iter().find(|function| function.id == id).expect("a function").name);
    assert_eq!(
        lines.iter().map(|&(id, line)| (name(id), line)).collect::<Vec<_>>(),
        [("<[u8; 4] as tower::Stone>::cut", 31), ("tower::floor", 44)]
    );
    assert_eq!(text(&named, named.sample[1].label[1].str), "ingest");
}

#[test]
fn what_rounds_to_nothing_is_left_out_with_its_locations() {
    let mut builder = Builder::new(Kind::Peak);
    builder.push(Row { id: 1, values: [0.2, 0.4, 0.0, 0.0], ..Row::default() }, &[0x10]);
    builder.push(Row { id: 2, values: [-1.0, -64.0, 0.0, 0.0], ..Row::default() }, &[0x20]);
    let profile = decode(&builder.finish().pprof(&mut Context::default())).expect("a profile");
    assert_eq!(profile.sample.len(), 1);
    assert_eq!(profile.sample[0].value, [-1, -64]);
    assert_eq!(profile.location.iter().map(|location| location.address).collect::<Vec<_>>(), [0x1f]);
}

#[test]
fn differences_last_and_stalls_have_a_kind() {
    let mut earlier = Builder::new(Kind::Contention).finish();
    earlier.taken = UNIX_EPOCH;
    let mut builder = Builder::new(Kind::Contention);
    let row = Row { id: 1, samples: 3, values: [3.0, 5e6, 0.0, 0.0], ..Row::default() };
    builder.push_stall(row, &[0x10], StallKind::Lock, Duration::from_millis(4));
    let mut later = builder.finish();
    later.taken = UNIX_EPOCH + Duration::from_millis(1500);
    let profile = decode(&later.since(&earlier).pprof(&mut Context::default())).expect("a profile");
    assert_eq!((profile.time_nanos, profile.duration_nanos), (1_500_000_000, 1_500_000_000));
    let [kind, longest] = profile.sample[0].label[..] else { panic!("{:?}", profile.sample[0]) };
    assert_eq!((text(&profile, kind.key), text(&profile, kind.str)), ("kind", "lock"));
    assert_eq!((text(&profile, longest.key), longest.num), ("longest", 4_000_000));
}

#[test]
fn every_kind_can_be_written_and_read() {
    for kind in Kind::ALL {
        let profile = decode(&take(kind).pprof(&mut Context::default())).expect("a profile");
        assert_eq!(profile.sample_type.len(), kind.value_types().len());
        assert_eq!(text(&profile, profile.default_sample_type), kind.value_types()[kind.default_value()].name);
    }
}

#[test]
fn what_was_read_is_written_as_it_was() {
    let (mappings, mut names) = (mappings(), towers_names);
    let bytes = towers().pprof(&mut Context { namer: Some(&mut names), mappings: &mappings, tags: None });
    let profile = decode(&bytes).expect("a profile");
    assert_eq!(decode(&encode(&profile)).expect("a profile"), profile);
}

#[test]
fn a_connection_that_breaks_off_is_an_error() {
    struct Broken;
    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let error = towers().write_pprof(Broken, &mut Context::default()).expect_err("nobody listens");
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
}
