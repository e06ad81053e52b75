use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::random::Random;

use super::*;
use crate::profile::Context;
use crate::profile::tests::{towers, towers_names};

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut to = GzEncoder::new(Vec::new(), Compression::fast());
    to.write_all(plain).and_then(|()| to.finish()).expect("a vector takes everything")
}

fn good() -> Vec<u8> {
    let mut names = towers_names;
    let gz = towers().pprof(&mut Context { namer: Some(&mut names), ..Context::default() });
    unfold(&gz).expect("our own")
}

fn says(bytes: &[u8]) -> String {
    decode(bytes).expect_err("no profile").to_string()
}

#[test]
fn plain_and_gzip_are_the_same() {
    let plain = good();
    assert_eq!(decode(&plain), decode(&gzip(&plain)));
    // Two members of gzip are one stream: protobuf may be cut in two anywhere.
    let (head, tail) = plain.split_at(plain.len() / 2);
    assert_eq!(decode(&[gzip(head), gzip(tail)].concat()), decode(&plain));
}

#[test]
fn what_is_no_profile_is_told_in_a_sentence() {
    assert_eq!(says(b""), "this is no profile: it is empty");
    assert_eq!(says(&gzip(b"")), "this is no profile: it is empty");
    assert_eq!(says(b"<html>"), "this is no profile of pprof, or it is damaged");
    let plain = good();
    let gz = gzip(&plain);
    assert!(says(&gz[..gz.len() / 2]).starts_with("the gzip data of this profile is damaged: "));
    assert!(says(&plain[..plain.len() - 1]).starts_with("this is no profile of pprof, or it is damaged"));
}

#[test]
fn what_refers_to_nothing_is_told() {
    let good = proto::Profile::decode(&good()[..]).expect("our own");
    let broken = |change: &dyn Fn(&mut proto::Profile)| {
        let mut profile = good.clone();
        change(&mut profile);
        says(&profile.encode_to_vec())
    };
    assert_eq!(broken(&|p| p.string_table[0] = "a".to_owned()), "this profile is damaged: its first string is not empty");
    assert_eq!(broken(&|p| p.sample[0].location_id[0] = 99), "this profile is damaged: it has no location 99");
    assert_eq!(broken(&|p| p.location[0].mapping_id = 98), "this profile is damaged: it has no mapping 98");
    assert_eq!(broken(&|p| p.location[0].line[0].function_id = 97), "this profile is damaged: it has no function 97");
    assert_eq!(broken(&|p| p.function[0].name = -1), "this profile is damaged: it has no string -1");
    assert_eq!(broken(&|p| p.comment[0] = i64::MAX), format!("this profile is damaged: it has no string {}", i64::MAX));
    assert_eq!(broken(&|p| p.sample[0].label[0].key = 1000), "this profile is damaged: it has no string 1000");
    assert_eq!(
        broken(&|p| p.sample[0].value.truncate(3)),
        "this profile is damaged: a sample has 3 values where there are 4 types"
    );
    assert_eq!(
        broken(&|p| p.location[0].id = p.location[1].id),
        "this profile is damaged: location 2 is there twice, or has no number"
    );
    assert_eq!(broken(&|p| p.function[0].id = 0), "this profile is damaged: function 0 is there twice, or has no number");
    assert_eq!(broken(&|p| p.sample_type.clear()), "this profile is damaged: it does not say what its values are");
}

/// Two bytes that stand for a message of many: they are counted before anything is allocated for them.
#[test]
fn a_bomb_is_counted_before_it_goes_off() {
    let samples = gzip(&[0x12, 0].repeat(32 << 20));
    assert_eq!(says(&samples), "this profile would take 2304 MiB of memory, which is more than any needs");
    assert_eq!(says(&gzip(&vec![0; 257 << 20])), "this profile has more than 256 MiB, which is more than any needs");
}

#[test]
fn what_is_counted_is_what_it_takes() {
    let profile = proto::Profile {
        string_table: vec![String::new(), "abc".to_owned()],
        sample_type: vec![proto::ValueType::default()],
        sample: vec![proto::Sample {
            location_id: vec![1, 300],
            value: vec![7],
            label: vec![proto::Label { key: 1, ..Default::default() }],
        }],
        ..Default::default()
    };
    let expected = 2 * size_of::<String>()
        + 3
        + size_of::<proto::ValueType>()
        + size_of::<proto::Sample>()
        + 3 * 8
        + size_of::<proto::Label>()
        // The number in the label, which takes nothing beyond it, is counted as well.
        + 8;
    assert_eq!(memory(&profile.encode_to_vec(), Shape::Profile), Some(expected));
}

/// Damage of all sorts: the answer is a profile that refers only to what it has, or a sentence.
#[test]
fn damaged_files_are_read_or_refused() {
    let seed = std::env::var("FREESTONE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0x5eed_u64);
    println!("FREESTONE_SEED={seed}");
    let mut random = Random(seed);
    let (good, mut read, mut refused) = (good(), 0, 0);
    for _ in 0..20_000 {
        let mut bytes = good.clone();
        for _ in 0..=random.below(4) {
            let at = random.below(bytes.len());
            match random.below(5) {
                0 => bytes[at] ^= 1 << random.below(8),
                1 => bytes[at] = 0xff,
                2 => drop(bytes.drain(at..(at + random.below(20)).min(bytes.len()))),
                3 => {
                    let piece = bytes[at..(at + random.below(40)).min(bytes.len())].to_vec();
                    let to = random.below(bytes.len());
                    bytes.splice(to..to, piece);
                }
                _ => bytes.truncate(at.max(1)),
            }
            if bytes.is_empty() {
                bytes.push(0);
            }
        }
        match decode(&bytes) {
            Ok(profile) => {
                check(&profile).expect("it was checked");
                read += 1;
            }
            Err(error) => {
                assert!(!error.to_string().contains('\n'), "{error}");
                refused += 1;
            }
        }
    }
    assert!(read > 100 && refused > 1000, "{read} were read and {refused} refused: that is no test of both");
}
