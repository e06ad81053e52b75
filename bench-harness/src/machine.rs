//! What the runs ran on, and who else was using it.

use std::fs;
use std::path::Path;
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
    /// The C library and its version, of which instruction counts depend as much as of the compiler's. Older records do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) c_library: Option<String>,
    /// Of the last minute, 5 and 15 minutes. Building the subjects shows in it.
    pub(crate) load_average: String,
    /// The processor's own program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) microcode: Option<String>,
    /// The kernel's unit of memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) page_bytes: Option<u64>,
    /// Does the kernel put things at other addresses each time?
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) randomizes: Option<bool>,
    /// The control group's `cpu.max`: how much of how many microseconds, or `max`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cpu_max: Option<String>,
    /// The control group's `memory.max`, in bytes, or `max`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) memory_max: Option<String>,
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

/// The kernel's unit of memory.
pub(crate) fn page_bytes() -> Option<u64> {
    // SAFETY: no memory is involved.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    u64::try_from(bytes).ok()
}

/// What limits our control group (version 2), if anything does: its own file, or that of the nearest group around it that has one.
fn of_control_group(file: &str) -> Option<String> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let group = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let folder = Path::new("/sys/fs/cgroup").join(group);
    folder
        .ancestors()
        .take_while(|folder| folder.starts_with("/sys/fs/cgroup"))
        .find_map(|folder| first_line(folder.join(file).to_str()?))
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
            c_library: Some(freestone_bench::subject::c_library()),
            load_average: first_line("/proc/loadavg")
                .map_or_else(unknown, |line| line.split(' ').take(3).collect::<Vec<_>>().join(" ")),
            microcode: value(&cpus, "microcode"),
            page_bytes: page_bytes(),
            randomizes: first_line("/proc/sys/kernel/randomize_va_space").map(|line| line != "0"),
            cpu_max: of_control_group("cpu.max"),
            memory_max: of_control_group("memory.max"),
        }
    }
}

/// Processor time used since some moment: by everybody, and by us and our children that have ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    at: Instant,
    everybody_ticks: i64,
    ours_ticks: i64,
    /// What the host gave to others while this machine had something to do.
    stolen_ticks: i64,
    /// Of all cores, whatever they did.
    all_ticks: i64,
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
        let (stolen_ticks, all_ticks) = (all.get(7).copied().unwrap_or(0), all.iter().take(8).sum());
        Some(Self { at: Instant::now(), everybody_ticks, ours_ticks, stolen_ticks, all_ticks })
    }

    /// The share of the processors' time that the host took since `before`.
    pub(crate) fn stolen_since(&self, before: &Self) -> f64 {
        (self.stolen_ticks - before.stolen_ticks).max(0) as f64 / (self.all_ticks - before.all_ticks).max(1) as f64
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

/// Does the host take enough to doubt the figures?
pub(crate) fn is_robbed(stolen: f64) -> bool {
    stolen > 0.01
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
