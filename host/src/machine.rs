//! What the system says of this process and machine.

/// Peak resident memory of this process in bytes (VmHWM).
pub fn peak_memory() -> Option<u64> {
    memory_of("self", "VmHWM:")
}

/// A line of `/proc/<process>/status`, in bytes.
pub fn memory_of(process: &str, key: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    let kibibytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kibibytes * 1024)
}

/// A private copy of standard output; descriptor 1 then leads to standard error, so that whatever a
/// plugin prints cannot disturb what this process has to say.
///
/// # Errors
/// The system refuses a descriptor.
pub fn private_stdout() -> std::io::Result<std::fs::File> {
    let private = rustix::io::fcntl_dupfd_cloexec(std::io::stdout(), 3)?;
    rustix::stdio::dup2_stdout(std::io::stderr())?;
    Ok(std::fs::File::from(private))
}
