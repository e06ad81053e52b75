//! Floor 0. One line of text under construction, on the stack: last words, complaints, the trace. Nothing is allocated, and what does not fit is
//! cut off.

/// A line of at most so many bytes, its end included.
#[derive(Debug)]
pub(crate) struct Line<const BYTES: usize> {
    bytes: [u8; BYTES],
    length: usize,
}

impl<const BYTES: usize> Line<BYTES> {
    /// A line without anything on it.
    pub(crate) fn new() -> Self {
        Self { bytes: [0; BYTES], length: 0 }
    }

    pub(crate) fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    /// What others wrote: nothing in it can end the line or speak to a terminal.
    pub(crate) fn bytes(&mut self, text: &[u8]) {
        for &byte in text {
            // One place stays free for the end of the line.
            if self.length + 1 < BYTES {
                self.bytes[self.length] = if byte.is_ascii_graphic() || byte == b' ' { byte } else { b'?' };
                self.length += 1;
            }
        }
    }

    /// At least so many digits.
    fn number(&mut self, mut value: u64, base: u64, digits_min: usize) {
        let mut digits = [b'0'; 20];
        let mut first = digits.len();
        while value > 0 || digits.len() - first < digits_min {
            first -= 1;
            digits[first] = b"0123456789abcdef"[(value % base) as usize];
            value /= base;
        }
        self.text(core::str::from_utf8(&digits[first..]).unwrap_or("?"));
    }

    pub(crate) fn decimal(&mut self, value: usize) {
        self.number(value as u64, 10, 1);
    }

    pub(crate) fn hexadecimal(&mut self, value: usize) {
        self.text("0x");
        self.number(value as u64, 16, 1);
    }

    /// A number, `whole` times so much as one: `12.345` is 12345 thousandths.
    fn fraction(&mut self, value: u64, one: u64, digits: usize) {
        self.number(value / one, 10, 1);
        self.text(".");
        self.number(value % one, 10, digits);
    }

    /// A time as seconds with six decimals. What is less than a microsecond is cut off.
    pub(crate) fn seconds(&mut self, ns: u64) {
        self.fraction(ns / 1_000, 1_000_000, 6);
    }

    /// A number with three decimals, rounded.
    pub(crate) fn thousandths(&mut self, value: f64) {
        self.fraction((value * 1e3 + 0.5) as u64, 1_000, 3);
    }

    /// The line with its end.
    pub(crate) fn finish(&mut self) -> &[u8] {
        self.bytes[self.length] = b'\n';
        &self.bytes[..=self.length]
    }
}

#[cfg(test)]
mod tests {
    use super::Line;

    fn written(write: impl FnOnce(&mut Line<400>)) -> String {
        let mut line = Line::new();
        write(&mut line);
        let text = line.finish().to_vec();
        String::from_utf8(text).expect("ASCII").trim_end_matches('\n').to_owned()
    }

    #[test]
    fn numbers_are_written_in_both_bases() {
        let text = written(|line| {
            line.decimal(0);
            line.text(" ");
            line.decimal(usize::MAX);
            line.text(" ");
            line.hexadecimal(0xdead_beef);
            line.text(" ");
            line.hexadecimal(0);
        });
        assert_eq!(text, "0 18446744073709551615 0xdeadbeef 0x0");
    }

    #[test]
    fn times_are_seconds_and_fractions_have_their_zeros() {
        for (ns, seconds) in [
            (0, "0.000000"),
            (999, "0.000000"),
            (1_000, "0.000001"),
            (12_003_104_999, "12.003104"),
            (u64::MAX, "18446744073.709551"),
        ] {
            assert_eq!(written(|line| line.seconds(ns)), seconds);
        }
        for (value, text) in
            [(0.0, "0.000"), (0.0005, "0.001"), (5321.25, "5321.250"), (9.9996, "10.000"), (1e12, "1000000000000.000")]
        {
            assert_eq!(written(|line| line.thousandths(value)), text);
        }
        for nonsense in [-1.0, f64::NAN] {
            assert_eq!(written(|line| line.thousandths(nonsense)), "0.000");
        }
    }

    #[test]
    fn a_line_that_is_too_long_is_cut_and_still_ends() {
        let mut line = Line::<400>::new();
        for _ in 0..100 {
            line.text("0123456789");
        }
        let finished = line.finish();
        assert_eq!(finished.len(), 400);
        assert_eq!(finished.last(), Some(&b'\n'));
    }

    #[test]
    fn what_others_wrote_cannot_end_it() {
        assert_eq!(written(|line| line.bytes(b"a\nb\x1b[31m\xff c")), "a?b?[31m? c");
    }
}
