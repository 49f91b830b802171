//! The processes that a worker starts, found again by `/proc`: what they use while it lives, and their end
//! with it.
//!
//! Both this process and every worker take in orphans. So a worker's descendants are found below it while it
//! lives, also those that left its group, and below this process once it is dead.

use std::collections::BTreeSet;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions};

/// Longest that the end of what a worker left behind is waited for.
const PATIENCE: Duration = Duration::from_secs(2);
/// A list of all processes is used for so long by those who only look.
const FRESH: Duration = Duration::from_millis(200);
/// Variable that every worker and its descendants have, and its value names this process.
const MARK: &str = "LONGHAUL_WORKER_OF";

/// Workers that were started and have not been waited for.
static WORKERS: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn mark() -> &'static str {
    static VALUE: OnceLock<String> = OnceLock::new();
    VALUE.get_or_init(|| {
        // Orphans of workers come here from the first worker on.
        let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
        format!("{}-{}", std::process::id(), super::watch::random_word())
    })
}

/// Has every descriptor of this process but the first three closed in its children when they begin. Those that
/// it opens itself are; whoever started it may have left others open, and a worker that holds the end of a
/// stranger's pipe would keep it open.
fn keep_descriptors() -> std::io::Result<()> {
    for entry in std::fs::read_dir("/proc/self/fd")?.flatten() {
        let number = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok());
        if let Some(number @ 3..) = number {
            // SAFETY: the call reads no memory and leaves the descriptor open. Where another thread has closed
            // it since, it is an error or concerns a newer one, of which the same is wanted.
            let fd = unsafe { BorrowedFd::borrow_raw(number) };
            let _ = rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::CLOEXEC);
        }
    }
    Ok(())
}

/// Starts a worker and counts it as one.
///
/// # Errors
/// The system's.
pub fn spawn(command: &mut Command) -> std::io::Result<Child> {
    command.env(MARK, mark());
    keep_descriptors()?;
    // Between its start and its registration it must not be taken for a stray.
    let mut workers = lock(&WORKERS);
    let child = command.spawn()?;
    workers.insert(child.id());
    Ok(child)
}

/// Kills a worker, if it still lives, with its group and all its descendants, and waits for it.
///
/// # Errors
/// The system's.
pub fn end(child: &mut Child) -> std::io::Result<std::process::ExitStatus> {
    if let Some(group) = pid(child.id()) {
        // Before it is waited for: its number cannot be anybody else's yet.
        let _ = rustix::process::kill_process_group(group, Signal::KILL);
    }
    let _ = child.kill();
    let status = child.wait();
    lock(&WORKERS).remove(&child.id());
    end_strays(child.id());
    status
}

/// Kills what a worker of this group left behind, and its children in turn, until there is nothing.
fn end_strays(group: u32) {
    let begun = Instant::now();
    let mut killed = BTreeSet::new();
    loop {
        let workers = lock(&WORKERS);
        let own = children_of(std::process::id(), Duration::ZERO);
        for child in own.into_iter().filter(|child| !workers.contains(child)) {
            let path = format!("/proc/{child}/stat");
            let (Some(stat), Some(process)) = (stat(path), pid(child)) else {
                continue;
            };
            if is_marked(process) {
                let _ = rustix::process::kill_process(process, Signal::KILL);
                killed.insert(child);
            } else if stat.group == group {
                // It was killed with its group, and has no variables any more.
                killed.insert(child);
            }
        }
        drop(workers);
        // The children of one that was killed just now come to light in the next list.
        if killed.is_empty() {
            return;
        }
        if begun.elapsed() > PATIENCE {
            let count = killed.len();
            tracing::warn!("{count} processes that a plugin started cannot be ended");
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
        killed.retain(|&child| {
            let waited =
                pid(child).map(|id| rustix::process::waitpid(Some(id), WaitOptions::NOHANG));
            matches!(waited, Some(Ok(None)))
        });
    }
}

/// Whether a process descends from one of this process's workers.
fn is_marked(process: Pid) -> bool {
    let path = format!("/proc/{}/environ", process.as_raw_nonzero());
    let wanted = format!("{MARK}={}", mark());
    let variables = std::fs::read(path).unwrap_or_default();
    variables
        .split(|&byte| byte == 0)
        .any(|variable| variable == wanted.as_bytes())
}

fn pid(process: u32) -> Option<Pid> {
    i32::try_from(process).ok().and_then(Pid::from_raw)
}

/// What a worker and its descendants use now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Resident memory in bytes; pages that several of them share count once where the system says so.
    pub memory_bytes: u64,
    /// Processor time since they began.
    pub processor: Duration,
    /// Threads that run or wait for a processor.
    pub running: u32,
}

/// What a worker and its descendants use now, as far as `/proc` says. Sharing is only looked into where
/// memory is above `limit`.
pub fn usage(worker: u32, limit: Option<u64>) -> Usage {
    let mut tree = vec![worker];
    let mut next = 0;
    while next < tree.len() && tree.len() < 10_000 {
        let children = children_of(tree[next], FRESH);
        tree.extend(children);
        next += 1;
    }
    let mut memory_bytes: u64 = tree.iter().filter_map(|&process| resident(process)).sum();
    if tree.len() > 1 && limit.is_some_and(|limit| memory_bytes > limit) {
        let share = |process: &u32| proportional(*process).or_else(|| resident(*process));
        memory_bytes = tree.iter().filter_map(share).sum();
    }
    let stats = tree
        .iter()
        .filter_map(|process| stat(format!("/proc/{process}/stat")));
    let ticks: u64 = stats.map(|stat| stat.ticks).sum();
    Usage {
        memory_bytes,
        processor: Duration::from_secs_f64(
            ticks as f64 / rustix::param::clock_ticks_per_second().max(1) as f64,
        ),
        running: tree.iter().map(|&process| running(process)).sum(),
    }
}

/// Resident memory of a process, in bytes.
fn resident(process: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/statm")).ok()?;
    let pages: u64 = text.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

/// Resident memory of a process in bytes, in which a page of several processes counts in parts.
fn proportional(process: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/smaps_rollup")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    let kibibytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kibibytes * 1024)
}

/// Threads of a process that run or wait for a processor.
fn running(process: u32) -> u32 {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task"));
    let tasks = tasks.into_iter().flatten().flatten();
    let states = tasks.filter_map(|task| stat(task.path().join("stat")));
    states.filter(|stat| stat.state == 'R').count() as u32
}

/// A line of `/proc/PID/stat`.
struct Stat {
    state: char,
    parent: u32,
    group: u32,
    /// Processor time, that of children that were waited for included.
    ticks: u64,
}

fn stat(path: impl AsRef<Path>) -> Option<Stat> {
    let line = std::fs::read(path).ok()?;
    // The name in brackets may hold anything, brackets and spaces too.
    let end = line.iter().rposition(|&byte| byte == b')')?;
    let rest = std::str::from_utf8(&line[end + 1..]).ok()?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let ticks = |index: usize| fields.get(index)?.parse::<u64>().ok();
    Some(Stat {
        state: fields.first()?.chars().next()?,
        parent: fields.get(1)?.parse().ok()?,
        group: fields.get(2)?.parse().ok()?,
        ticks: (11..15).filter_map(ticks).sum(),
    })
}

/// The children of a process, by a list of processes that is at most so old.
fn children_of(process: u32, age: Duration) -> Vec<u32> {
    if let Some(children) = children_by_thread(process) {
        return children;
    }
    let all = all(age);
    let own = all.iter().filter(|(_, parent)| *parent == process);
    own.map(|(child, _)| *child).collect()
}

/// The same in one look, where the kernel was built for it.
fn children_by_thread(process: u32) -> Option<Vec<u32>> {
    let mut children = Vec::new();
    for task in std::fs::read_dir(format!("/proc/{process}/task")).ok()? {
        let path = task.ok()?.path();
        match std::fs::read_to_string(path.join("children")) {
            Ok(list) => children.extend(
                list.split_whitespace()
                    .filter_map(|id| id.parse::<u32>().ok()),
            ),
            // A thread that ended meanwhile had its children moved to another.
            Err(_) if !path.exists() => {}
            Err(_) => return None,
        }
    }
    Some(children)
}

/// Every process with its parent. On a machine with very many the list is kept for longer, so that looking
/// takes at most a twentieth of one core.
fn all(age: Duration) -> std::sync::Arc<Vec<(u32, u32)>> {
    type List = std::sync::Arc<Vec<(u32, u32)>>;
    static LAST: Mutex<Option<(Instant, Duration, List)>> = Mutex::new(None);
    let mut last = lock(&LAST);
    if let Some((made, took, list)) = last.as_ref()
        && !age.is_zero()
        && made.elapsed() < age.max(20 * *took)
    {
        return List::clone(list);
    }
    let begun = Instant::now();
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let list = ids.filter_map(|id| Some((id, stat(format!("/proc/{id}/stat"))?.parent)));
    let list = List::new(list.collect());
    *last = Some((Instant::now(), begun.elapsed(), List::clone(&list)));
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_something() {
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(50) {
            std::hint::black_box(begun);
        }
        let usage = usage(std::process::id(), Some(1));
        assert!(usage.memory_bytes > 1 << 16, "{usage:?}");
        assert!(usage.processor > Duration::ZERO, "{usage:?}");
        assert!(usage.running >= 1, "{usage:?}");
    }

    #[test]
    fn children_are_found_and_are_not_strays_of_ours() {
        let mut child = Command::new("sleep").arg("100").spawn().unwrap();
        let children = children_of(std::process::id(), Duration::ZERO);
        assert!(children.contains(&child.id()), "{children:?}");
        // Somebody else's child is left alone, whatever is swept away.
        end_strays(u32::MAX);
        assert!(child.try_wait().unwrap().is_none(), "it lives");
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
