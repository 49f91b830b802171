//! What machine this is: facts for `run.toml` and the defaults of jobs, threads and memory. Reads
//! `/proc` and `/sys` and changes nothing.

use std::path::Path;

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
        let os = value(&read("/etc/os-release"), "PRETTY_NAME", '=');
        Self {
            cpu: processor().unwrap_or_else(|| "unknown".to_owned()),
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

/// Model of the processor.
pub fn processor() -> Option<String> {
    let info = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    value(&info, "model name", ':')
}

/// Cores that this process may use.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Memory of the machine, or of the control groups that this process is in where one has less, in bytes.
pub fn memory_bytes() -> Option<u64> {
    let meminfo = std::fs::read_to_string("/proc/meminfo").ok()?;
    let total = value(&meminfo, "MemTotal", ':')?;
    let total: u64 = total.strip_suffix("kB")?.trim().parse().ok()?;
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let group = group_memory(&groups, Path::new("/sys/fs/cgroup"));
    Some(group.map_or(total * 1024, |group| group.min(total * 1024)))
}

/// The least limit of memory of these groups, as `/proc/self/cgroup` has them, and of all that they are in: the second
/// version of control groups has one tree, the first one for each kind of limit.
fn group_memory(groups: &str, mount: &Path) -> Option<u64> {
    let mut least = None;
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(kinds), Some(group)) = (parts.next(), parts.next()) else {
            continue;
        };
        let (tree, file) = match kinds {
            "" => (mount.to_owned(), "memory.max"),
            kinds if kinds.split(',').any(|kind| kind == "memory") => {
                (mount.join("memory"), "memory.limit_in_bytes")
            }
            _ => continue,
        };
        // In a container the path may be the machine's, and only its end, or the root alone, be there.
        for group in Path::new(group).ancestors() {
            let group = group.strip_prefix("/").unwrap_or(group);
            let limit = std::fs::read_to_string(tree.join(group).join(file));
            let limit = limit.ok().and_then(|text| text.trim().parse::<u64>().ok());
            least = least.into_iter().chain(limit).min();
        }
    }
    least
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
    fn the_least_memory_of_nested_groups_counts() {
        let mount = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let path = mount.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let of = |groups: &str| group_memory(groups, mount.path());
        assert_eq!(of("0::/user.slice/job.scope\n"), None);
        put("user.slice/memory.max", "4096\n");
        put("user.slice/job.scope/memory.max", "max\n");
        assert_eq!(of("0::/user.slice/job.scope\n"), Some(4096));
        put("user.slice/job.scope/step/memory.max", "1024\n");
        assert_eq!(of("0::/user.slice/job.scope/step\n"), Some(1024));
        assert_eq!(of("0::/user.slice\n"), Some(4096));
        put("memory.max", "2048\n");
        assert_eq!(of("0::/elsewhere/of/the/machine\n"), Some(2048));
        put("memory/slurm/memory.limit_in_bytes", "512\n");
        let both = "9:cpu,memory:/slurm/job\n3:freezer:/\n0::/\n";
        assert_eq!(of(both), Some(512));
    }

    #[test]
    fn this_machine() {
        let machine = Machine::here();
        assert!(machine.cores >= 1);
        assert!(machine.memory_bytes.is_none_or(|bytes| bytes > 1 << 26));
    }
}
