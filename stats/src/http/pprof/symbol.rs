//! Names for addresses, as pprof asks for them: `0x55d0c0+0x55d0c8`, in the body of a POST or in the query of a GET.
//!
//! pprof sends the addresses of a profile as they stand there. These lie within calls already, so nothing is subtracted here.

use std::fmt::Write as _;

/// A request is no longer: some 70,000 addresses.
pub(super) const REQUEST_BYTES_MAX: usize = 1 << 20;

/// A line for every address that has a name, in the order of the request. That there are names at all is said first: pprof asks for that with an empty
/// request, and wants a number above 0.
pub(super) fn answer(request: &[u8], mut name: impl FnMut(u64) -> Option<String>) -> String {
    let mut text = "num_symbols: 1\n".to_owned();
    for word in request.split(|&byte| byte == b'+') {
        if let Some(address) = parse(word)
            && let Some(name) = name(address)
        {
            let _ = writeln!(text, "{address:#x} {}", for_pprof(&name));
        }
    }
    text
}

/// pprof takes names with angle brackets for C++, and leaves out what stands in them: `<app::Cache as Insert>::insert` would be shown as `::insert`.
/// So what a method belongs to goes before its name without them: `app::Cache::insert`.
fn for_pprof(name: &str) -> String {
    let mut name = name.to_owned();
    while let Some((of, rest)) = qualified(&name) {
        // Not of what has brackets of another kind: these are left as they are.
        if !of.starts_with(|letter: char| letter.is_alphabetic() || letter == '_' || letter == '<') {
            break;
        }
        name = format!("{of}{rest}");
    }
    name
}

/// `<A as B>::c` or `<A>::c` in two: `A`, `::c`.
fn qualified(name: &str) -> Option<(&str, &str)> {
    let inner = name.strip_prefix('<')?;
    let (mut depth, mut end_of_type, mut before) = (0_usize, None, ' ');
    for (at, letter) in inner.char_indices() {
        match letter {
            '<' | '(' | '[' => depth += 1,
            '>' if before == '-' => {}
            '>' if depth == 0 => return Some((&inner[..end_of_type.unwrap_or(at)], &inner[at + 1..])),
            '>' | ')' | ']' => depth = depth.checked_sub(1)?,
            ' ' if depth == 0 && end_of_type.is_none() && inner[at..].starts_with(" as ") => end_of_type = Some(at),
            _ => {}
        }
        before = letter;
    }
    None
}

/// As Go parses it, but for octal and binary, which nobody sends. What is no address has no name.
fn parse(word: &[u8]) -> Option<u64> {
    let word = std::str::from_utf8(word).ok()?.trim_ascii();
    let digits = word.strip_prefix("0x").or_else(|| word.strip_prefix("0X"));
    let address = digits.map_or_else(|| word.parse().ok(), |digits| u64::from_str_radix(digits, 16).ok())?;
    (address != 0).then_some(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_told_from_rubbish() {
        for (word, address) in [
            ("0x10", Some(16)),
            ("0XfF", Some(255)),
            ("16", Some(16)),
            (" 0x10\n", Some(16)),
            ("0xffffffffffffffff", Some(u64::MAX)),
            ("0x10000000000000000", None),
            ("0x", None),
            ("0", None),
            ("", None),
            ("-1", None),
            ("main", None),
        ] {
            assert_eq!(parse(word.as_bytes()), address, "{word}");
        }
        assert_eq!(parse(b"0x\xff"), None);
    }

    #[test]
    fn rubbish_has_no_names() {
        let nothing = |_| None;
        assert_eq!(answer(b"", nothing), "num_symbols: 1\n");
        assert_eq!(answer(b"0x1+++\xff+zz+0x", nothing), "num_symbols: 1\n");
    }

    #[test]
    fn names_stand_beside_their_addresses() {
        let even = |address: u64| address.is_multiple_of(2).then(|| format!("even::f{address}"));
        assert_eq!(answer(b"0x10+0x11+zz+0x20", even), "num_symbols: 1\n0x10 even::f16\n0x20 even::f32\n");
    }

    #[test]
    fn names_survive_what_pprof_does_to_them() {
        for (name, shown) in [
            ("app::main", "app::main"),
            ("<app::Cache as core::ops::Drop>::drop", "app::Cache::drop"),
            ("<alloc::vec::Vec<T> as core::iter::FromIterator<T>>::from_iter", "alloc::vec::Vec<T>::from_iter"),
            ("<alloc::raw_vec::RawVec<app::Order>>::grow_one", "alloc::raw_vec::RawVec<app::Order>::grow_one"),
            ("<<app::A as app::B>::C as app::D>::e::{{closure}}", "app::A::C::e::{{closure}}"),
            ("<alloc::boxed::Box<dyn Fn() -> u8> as F>::call", "alloc::boxed::Box<dyn Fn() -> u8>::call"),
            ("<[T]>::to_vec", "<[T]>::to_vec"),
            ("<&mut W as core::fmt::Write>::write_str", "<&mut W as core::fmt::Write>::write_str"),
            ("<(A,B) as C>::d", "<(A,B) as C>::d"),
            ("<broken", "<broken"),
            ("<)>", "<)>"),
            ("app.so!0x4a10", "app.so!0x4a10"),
            ("", ""),
        ] {
            assert_eq!(for_pprof(name), shown);
        }
    }
}
