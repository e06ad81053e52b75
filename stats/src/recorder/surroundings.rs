//! What the kernel says of the machine and of processes, where it says anything.

use std::fs;

/// Which start of the machine this is.
pub(super) fn boot() -> Option<[u8; 16]> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    parse_boot(&text)
}

fn parse_boot(text: &str) -> Option<[u8; 16]> {
    let digits: String = text.trim().chars().filter(|&char| char != '-').collect();
    u128::from_str_radix(&digits, 16).ok().filter(|_| digits.len() == 32).map(u128::to_be_bytes)
}

/// When a process was started, in clock ticks since the machine was.
pub(super) fn process_started_ticks(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    parse_started(&text)
}

fn parse_started(stat: &str) -> Option<u64> {
    // The name stands in parentheses, and may contain anything, parentheses included. The state behind it is field 3, the start field 22.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace();
    // One that has ended and waits for its parent to notice holds nothing and records nothing.
    let state = fields.next()?;
    fields.nth(18)?.parse().ok().filter(|_| !matches!(state, "Z" | "X"))
}

/// How often the OOM killer has killed since the machine was started, whomever.
pub(super) fn oom_kills() -> Option<u64> {
    let text = fs::read_to_string("/proc/vmstat").ok()?;
    text.lines().find_map(|line| line.strip_prefix("oom_kill "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::{parse_boot, parse_started};

    #[test]
    fn a_boot_is_128_bits() {
        let boot = parse_boot("0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0\n").expect("as the kernel writes it");
        assert_eq!(boot[..4], [0x0f, 0x1e, 0x2d, 0x3c]);
        assert_eq!(parse_boot("0f1e2d3c-4b5a\n"), None);
        assert_eq!(parse_boot(""), None);
    }

    #[test]
    fn a_start_is_found_behind_any_name() {
        let fields = "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20 21";
        assert_eq!(parse_started(&format!("17 (cat) S {fields}")), Some(4711));
        assert_eq!(parse_started(&format!("17 (a) b (c) R {fields}")), Some(4711));
        assert_eq!(parse_started(&format!("17 (cat) Z {fields}")), None, "a zombie");
        assert_eq!(parse_started("17 (cat) S 1 2"), None);
        assert_eq!(parse_started(""), None);
    }
}
