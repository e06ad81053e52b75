//! What has to be understood of Rust: where a source registers a global allocator of its own.

/// Comments, strings and characters replaced by spaces, byte for byte, so that what is left is code, in its place.
fn code_of(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut code = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = at + length_of_no_code(bytes, at);
        if end == at {
            // Names and numbers in one go: the r of `for"…"` begins no raw string.
            let word = bytes[at..].iter().take_while(|byte| is_of_a_word(**byte)).count();
            at += word.max(1);
            continue;
        }
        for byte in &mut code[at..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = end;
    }
    code
}

fn is_of_a_word(byte: u8) -> bool {
    byte == b'_' || byte.is_ascii_alphanumeric() || byte >= 128
}

/// How long the comment, string or character is that begins at `at`; 0 if there begins none.
fn length_of_no_code(bytes: &[u8], at: usize) -> usize {
    let rest = &bytes[at..];
    if rest.starts_with(b"//") {
        return rest.iter().take_while(|byte| **byte != b'\n').count();
    }
    if rest.starts_with(b"/*") {
        return comment(rest);
    }
    let prefix =
        [&b"br"[..], b"cr", b"r", b"b", b"c", b""].into_iter().find(|prefix| rest.starts_with(prefix)).unwrap_or_default();
    let raw = prefix.ends_with(b"r");
    let hashes = if raw { rest[prefix.len()..].iter().take_while(|byte| **byte == b'#').count() } else { 0 };
    let opening = prefix.len() + hashes;
    match rest.get(opening) {
        Some(b'"') if raw => {
            let closing: Vec<u8> = [b"\"", &b"#".repeat(hashes)[..]].concat();
            let inner = &rest[opening + 1..];
            inner
                .windows(closing.len())
                .position(|its| its == closing)
                .map_or(rest.len(), |end| opening + 1 + end + closing.len())
        }
        Some(b'"') => opening + 1 + until(&rest[opening + 1..], b'"'),
        // 'a' and '\n' are characters, 'a without an end is a lifetime.
        Some(b'\'') if matches!(prefix, b"" | b"b") => match rest[opening + 1..] {
            [b'\\', ..] => opening + 1 + until(&rest[opening + 1..], b'\''),
            [first, ..] => {
                let width = first.leading_ones().max(1) as usize;
                if rest.get(opening + 1 + width) == Some(&b'\'') { opening + 2 + width } else { 0 }
            }
            [] => 0,
        },
        _ => 0,
    }
}

/// To behind the closing quote, over what a backslash escapes.
fn until(inner: &[u8], quote: u8) -> usize {
    let mut at = 0;
    while at < inner.len() {
        match inner[at] {
            b'\\' => at += 2,
            byte if byte == quote => return at + 1,
            _ => at += 1,
        }
    }
    inner.len()
}

/// Comments nest.
fn comment(rest: &[u8]) -> usize {
    let (mut at, mut depth) = (0, 0);
    while at < rest.len() {
        if rest[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    rest.len()
}

/// Where the word stands in attributes that register a global allocator: `#[global_allocator]`, and in `cfg_attr`.
fn registrations(text: &str) -> Vec<usize> {
    const WORD: &[u8] = b"global_allocator";
    // Most files do not have the word at all.
    if !text.contains("global_allocator") {
        return Vec::new();
    }
    let code = code_of(text);
    let is_alone = |at: usize| {
        let before = at.checked_sub(1).is_some_and(|before| is_of_a_word(code[before]));
        !before && !code.get(at + WORD.len()).is_some_and(|after| is_of_a_word(*after))
    };
    let found = code.windows(WORD.len()).enumerate().filter(|(at, word)| *word == WORD && is_alone(*at));
    found.map(|(at, _)| at).filter(|at| is_in_attribute(&code[..*at])).collect()
}

/// Does what stands before lead into an attribute that applies what comes: `#[`, or `#[cfg_attr(…,`?
fn is_in_attribute(before: &[u8]) -> bool {
    let mut closed = 0;
    for (at, byte) in before.iter().enumerate().rev() {
        let leading = before[..at].trim_ascii_end();
        match byte {
            b')' | b']' => closed += 1,
            b'(' | b'[' if closed > 0 => closed -= 1,
            b'[' => return leading.ends_with(b"#"),
            b'(' if leading.ends_with(b"cfg_attr") => {}
            b'(' | b'{' | b'}' | b';' => return false,
            _ => {}
        }
    }
    false
}

/// The source with its allocators unregistered, and in which lines; `None` where there are none. The statics stay, for who else refers to them.
pub(crate) fn without_allocators(text: &str) -> Option<(String, Vec<usize>)> {
    let found = registrations(text);
    if found.is_empty() {
        return None;
    }
    let mut patched = text.to_owned();
    for at in found.iter().rev() {
        patched.replace_range(*at..*at + "global_allocator".len(), "allow(dead_code)");
    }
    let line = |at: &usize| 1 + text[..*at].matches('\n').count();
    Some((patched, found.iter().map(line).collect()))
}

#[cfg(test)]
mod tests {
    use super::without_allocators;

    #[test]
    fn a_registration_is_taken_back_wherever_it_stands() {
        let cases = [
            ("#[global_allocator]\nstatic A: X = X;", "#[allow(dead_code)]\nstatic A: X = X;"),
            ("# [\n  global_allocator ] static A: X = X;", "# [\n  allow(dead_code) ] static A: X = X;"),
            ("#[cfg_attr(all(a, b), global_allocator)]", "#[cfg_attr(all(a, b), allow(dead_code))]"),
            ("#[cfg(x)] #[global_allocator] static", "#[cfg(x)] #[allow(dead_code)] static"),
            ("let c = '\"'; #[global_allocator]", "let c = '\"'; #[allow(dead_code)]"),
            (
                "let c = b'\\''; fn f<'a>(x: &'a str) {} #[global_allocator]",
                "let c = b'\\''; fn f<'a>(x: &'a str) {} #[allow(dead_code)]",
            ),
            ("/* a /* b */ \" */ #[global_allocator]", "/* a /* b */ \" */ #[allow(dead_code)]"),
            // In old editions a string may follow a word at once.
            ("for\"\\\"\"; #[global_allocator]", "for\"\\\"\"; #[allow(dead_code)]"),
            ("r#type; \"\\\\\"; #[global_allocator]", "r#type; \"\\\\\"; #[allow(dead_code)]"),
        ];
        for (source, expected) in cases {
            let patched = without_allocators(source).map(|(patched, _)| patched);
            assert_eq!(patched.as_deref(), Some(expected));
        }
    }

    #[test]
    fn what_only_mentions_one_is_left_alone() {
        let sources = [
            "// #[global_allocator]",
            "/* #[global_allocator] */",
            "/// #[global_allocator]\n//! #[global_allocator]",
            "let text = \"#[global_allocator]\";",
            "let text = r##\"\"# #[global_allocator]\"##;",
            "let text = br\"\\\"; let other = \"#[global_allocator]\";",
            "let global_allocator = [global_allocator];",
            "#[doc(global_allocator)]",
            "#[my_global_allocator]",
            "fn global_allocator() {}",
            "#[cfg(any(global_allocator))] fn f() {}",
        ];
        for source in sources {
            assert_eq!(without_allocators(source), None, "{source}");
        }
    }

    #[test]
    fn lines_are_counted_and_kept() {
        let source = "\n\n#[global_allocator]\nstatic A: X = X;\n#[cfg(b)]\n#[global_allocator]\nstatic B: X = X;\n";
        let (patched, lines) = without_allocators(source).expect("there are two");
        assert_eq!(lines, [3, 6]);
        assert_eq!(patched.lines().count(), source.lines().count());
    }

    #[test]
    fn a_source_that_breaks_off_ends() {
        for source in ["#[global_allocator", "\"", "r#\"", "'", "b'\\", "/*", "#[global_allocator] \"\\", "'é"] {
            let _ = without_allocators(source);
        }
    }
}
