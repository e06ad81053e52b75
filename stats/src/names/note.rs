//! Build ids: what the linker wrote into a file so that one build of it can be told from another. They lie in notes, of which there are several.

use std::fmt::Write as _;

/// Type of the note of the owner `GNU` that holds the build id.
const NT_GNU_BUILD_ID: u32 = 3;

/// Longer ids are nobody's: the linkers write 8 to 20 bytes, and as many as somebody gives them by hand.
const BUILD_ID_BYTES_MAX: usize = 64;

/// The build id among these notes, in hexadecimal. `align`: of the program header that they come from.
///
/// ```text
///   u32 bytes of the name, u32 bytes of the contents, u32 type, name, padding, contents, padding
/// ```
pub(super) fn build_id(mut notes: &[u8], align: u64) -> Option<String> {
    let align = if align == 8 { 8 } else { 4 };
    loop {
        let (head, rest) = notes.split_first_chunk::<12>()?;
        let word = |index: usize| u32::from_ne_bytes(std::array::from_fn(|byte| head[index * 4 + byte]));
        let (name_bytes, bytes, kind) = (word(0) as usize, word(1) as usize, word(2));
        // Both ends are counted from the beginning of the note, and a multiple of `align`.
        let begin = 12_usize.checked_add(name_bytes)?.checked_next_multiple_of(align)? - 12;
        let end = begin.checked_add(bytes)?;
        let contents = rest.get(begin..end)?;
        if kind == NT_GNU_BUILD_ID && rest[..name_bytes] == *b"GNU\0" {
            return (1..=BUILD_ID_BYTES_MAX).contains(&bytes).then(|| hexadecimal(contents));
        }
        notes = rest.get(end.checked_add(12)?.checked_next_multiple_of(align)? - 12..)?;
    }
}

pub(super) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::build_id;

    fn note(owner: &[u8], kind: u32, contents: &[u8], align: usize) -> Vec<u8> {
        let mut note = Vec::new();
        for word in [owner.len() as u32, contents.len() as u32, kind] {
            note.extend_from_slice(&word.to_ne_bytes());
        }
        for part in [owner, contents] {
            note.extend_from_slice(part);
            note.resize(note.len().next_multiple_of(align), 0);
        }
        note
    }

    #[test]
    fn the_build_id_is_found_among_other_notes() {
        for align in [4, 8] {
            let notes = [
                note(b"GNU\0", 5, &[1; 16], align),
                note(b"stapsdt\0", 3, &[2; 5], align),
                note(b"GNU\0", 3, &[0xab, 0, 0x0c], align),
            ];
            assert_eq!(build_id(&notes.concat(), align as u64).as_deref(), Some("ab000c"));
            assert_eq!(build_id(&notes[..2].concat(), align as u64), None);
        }
    }

    #[test]
    fn notes_that_lie_about_their_length_end_there() {
        let whole = [note(b"GNU\0", 1, &[7; 4], 4), note(b"GNU\0", 3, &[1; 20], 4)].concat();
        for length in 0..whole.len() {
            let _ = build_id(&whole[..length], 4);
        }
        for at in 0..whole.len() {
            for value in [0, 0x7f, 0xff] {
                let mut notes = whole.clone();
                notes[at] = value;
                let _ = build_id(&notes, 4);
            }
        }
        assert_eq!(build_id(&[0xff; 64], 4), None);
        assert_eq!(build_id(&note(b"GNU\0", 3, &[1; 65], 4), 4), None);
    }
}
