//! What the runs ran on, and who else was using it.

use std::fs;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// The machine, as far as it bears on the figures.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Machine {
    /// The name that the CPU gives itself.
    pub(crate) cpu: String,
    /// Cores that this process may use.
    pub(crate) cores: usize,
    /// Does a hypervisor stand between?
    pub(crate) is_virtual: bool,
    /// RAM.
    pub(crate) memory_bytes: u64,
    /// Name and release.
    pub(crate) kernel: String,
    /// Transparent huge pages: `always`, `madvise` or `never`.
    pub(crate) huge_pages: String,
    /// How the clock rate is chosen, where the kernel says.
    pub(crate) governor: Option<String>,
    /// The compiler's version.
    pub(crate) rustc: String,
    /// Of the last minute, 5 and 15 minutes. Building the subjects shows in it.
    pub(crate) load_average: String,
}

fn first_line(path: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    text.lines().next().map(|line| line.trim().to_owned())
}

/// The value behind `name` and a colon in a file of such lines.
fn value(text: &str, name: &str) -> Option<String> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix(':'))?;
    Some(rest.trim().to_owned())
}

impl Machine {
    /// Asks the kernel; what it does not say is "unknown".
    pub(crate) fn look(rustc: String) -> Self {
        let unknown = || "unknown".to_owned();
        let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let memory_kib = value(&memory, "MemTotal").and_then(|text| text.split(' ').next()?.parse::<u64>().ok());
        let huge_pages = first_line("/sys/kernel/mm/transparent_hugepage/enabled");
        let chosen =
            huge_pages.as_deref().and_then(|line| line.split_once('[')?.1.split_once(']')).map(|(chosen, _)| chosen.to_owned());
        Self {
            cpu: value(&cpus, "model name")
                .or_else(|| value(&cpus, "Model"))
                .unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            cores: thread::available_parallelism().map_or(1, usize::from),
            is_virtual: value(&cpus, "flags").is_some_and(|flags| flags.split(' ').any(|flag| flag == "hypervisor")),
            memory_bytes: memory_kib.unwrap_or(0) * 1024,
            kernel: first_line("/proc/sys/kernel/osrelease").map_or_else(unknown, |release| format!("Linux {release}")),
            huge_pages: chosen.unwrap_or_else(unknown),
            governor: first_line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
            rustc,
            load_average: first_line("/proc/loadavg")
                .map_or_else(unknown, |line| line.split(' ').take(3).collect::<Vec<_>>().join(" ")),
        }
    }
}

/// Processor time used since some moment: by everybody, and by us and our children that have ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    at: Instant,
    everybody_ticks: i64,
    ours_ticks: i64,
}

impl Usage {
    /// The kernel's unit in `/proc`, 10 ms, the same on all machines that Rust's std runs on.
    const TICKS_PER_SECOND: f64 = 100.0;

    /// `None` where the kernel does not say.
    pub(crate) fn now() -> Option<Self> {
        let numbers = |text: &str| -> Vec<i64> { text.split_whitespace().filter_map(|number| number.parse().ok()).collect() };
        // user nice system idle iowait irq softirq steal
        let all = numbers(first_line("/proc/stat")?.strip_prefix("cpu ")?);
        let everybody_ticks = [0, 1, 2, 5, 6, 7].iter().filter_map(|&field| all.get(field)).sum();
        // Behind the name in parentheses and one letter: utime stime cutime cstime are the fields 14 to 17, of which the name is the second.
        let own = first_line("/proc/self/stat")?;
        let own = numbers(own.rsplit_once(')')?.1.trim_start().split_once(' ')?.1);
        let ours_ticks = own.get(10..14)?.iter().sum();
        Some(Self { at: Instant::now(), everybody_ticks, ours_ticks })
    }

    /// How many cores others kept busy since `before`, on average.
    pub(crate) fn cores_of_others_since(&self, before: &Self) -> f64 {
        let seconds = self.at.duration_since(before.at).as_secs_f64().max(0.01);
        let others = (self.everybody_ticks - before.everybody_ticks) - (self.ours_ticks - before.ours_ticks);
        others.max(0) as f64 / Self::TICKS_PER_SECOND / seconds
    }

    /// Watches for a moment how many cores others keep busy.
    pub(crate) fn cores_of_others() -> Option<f64> {
        let before = Self::now()?;
        thread::sleep(Duration::from_millis(500));
        Some(Self::now()?.cores_of_others_since(&before))
    }
}

/// Are so many cores in use by others enough to doubt the figures?
pub(crate) fn is_busy(cores_of_others: f64, cores: usize) -> bool {
    cores_of_others > cores as f64 / 10.0
}

/// What a program prints when it works, without the line's end.
pub(crate) fn said(command: &mut Command) -> Option<String> {
    let output = command.output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::{Machine, Usage, value};

    #[test]
    fn values_stand_behind_a_name_and_a_colon() {
        let text = "model\t\t: 1\nmodel name\t: A Fine CPU\n";
        assert_eq!(value(text, "model name").as_deref(), Some("A Fine CPU"));
        assert_eq!(value(text, "model").as_deref(), Some("1"));
        assert_eq!(value(text, "flags"), None);
    }

    #[test]
    fn this_machine_has_a_core_and_a_usage() {
        let machine = Machine::look("1.95.0".to_owned());
        assert!(machine.cores > 0);
        let before = Usage::now().expect("Linux has /proc");
        let after = Usage::now().expect("Linux has /proc");
        assert!(after.cores_of_others_since(&before) >= 0.0);
    }
}
