//! What machine this is: facts for `run.toml` and the defaults of jobs, threads and memory. Reads
//! `/proc` and `/sys` and changes nothing.

use serde::{Deserialize, Serialize};

use crate::number::size;

/// A machine, as far as it matters to speed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// Model of the processor.
    pub cpu: String,
    /// Cores that this process may use.
    pub cores: usize,
    /// Memory that this process may use, in bytes.
    pub memory_bytes: Option<u64>,
    /// Operating system.
    pub os: String,
    /// Kernel release.
    pub kernel: String,
}

impl Machine {
    /// What it is, in words.
    pub fn words(&self) -> String {
        let memory = |bytes: u64| format!("{}, ", size(bytes));
        format!(
            "{}, {} cores, {}{}, kernel {}",
            self.cpu,
            self.cores,
            self.memory_bytes.map(memory).unwrap_or_default(),
            self.os,
            self.kernel
        )
    }

    /// This machine. What cannot be read is `unknown`.
    pub fn here() -> Self {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        let cpu = value(&read("/proc/cpuinfo"), "model name", ':');
        let os = value(&read("/etc/os-release"), "PRETTY_NAME", '=');
        Self {
            cpu: cpu.unwrap_or_else(|| "unknown".to_owned()),
            cores: cores(),
            memory_bytes: memory_bytes(),
            os: os.unwrap_or_else(|| std::env::consts::OS.to_owned()),
            kernel: rustix::system::uname()
                .release()
                .to_string_lossy()
                .into_owned(),
        }
    }
}

/// Cores that this process may use.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Memory of the machine, or of the control group where that is less, in bytes.
pub fn memory_bytes() -> Option<u64> {
    let meminfo = std::fs::read_to_string("/proc/meminfo").ok()?;
    let total = value(&meminfo, "MemTotal", ':')?;
    let total: u64 = total.strip_suffix("kB")?.trim().parse().ok()?;
    let group = std::fs::read_to_string("/sys/fs/cgroup/memory.max").ok();
    let group = group.and_then(|text| text.trim().parse::<u64>().ok());
    Some(group.map_or(total * 1024, |group| group.min(total * 1024)))
}

/// The value of the first `key<separator>value` line, without quotes.
fn value(text: &str, key: &str, separator: char) -> Option<String> {
    text.lines().find_map(|line| {
        let (found, value) = line.split_once(separator)?;
        (found.trim() == key).then(|| value.trim().trim_matches('"').to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_by_key() {
        let text = "processor\t: 0\nmodel name\t: A Chip 9\n";
        assert_eq!(value(text, "model name", ':').unwrap(), "A Chip 9");
        assert_eq!(
            value("A=1\nPRETTY_NAME=\"An OS 12\"", "PRETTY_NAME", '=').unwrap(),
            "An OS 12"
        );
        assert_eq!(value(text, "cores", ':'), None);
    }

    #[test]
    fn this_machine() {
        let machine = Machine::here();
        assert!(machine.cores >= 1);
        assert!(machine.memory_bytes.is_none_or(|bytes| bytes > 1 << 26));
    }
}
