//! What a plugin can do to its process by the system's own calls.

use std::fs::{File, read_dir, read_link};
use std::io::Write;
use std::time::Duration;

// C's own names, of the library that every process has.
unsafe extern "C" {
    fn fork() -> i32;
    fn setsid() -> i32;
    fn raise(signal: i32) -> i32;
    fn write(descriptor: i32, bytes: *const u8, count: usize) -> isize;
}

/// Forks a child that holds whatever is open, in a session of its own, and sleeps.
pub fn leave_a_child() {
    // SAFETY: the child calls nothing but `setsid` and a sleep, which need no lock that another thread had.
    unsafe {
        if fork() == 0 {
            setsid();
            loop {
                std::thread::sleep(Duration::from_secs(3600));
            }
        }
    }
}

/// Ends this process by a signal that cannot be caught.
pub fn kill_self() -> ! {
    // SAFETY: 9 is SIGKILL, after which nothing of this process runs.
    unsafe { raise(9) };
    std::process::abort()
}

/// Writes to every pipe of this process, the worker's own line to its host among them.
pub fn write_to_pipes(bytes: &[u8]) {
    let open = read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let pipes = open.filter(|entry| {
        read_link(entry.path()).is_ok_and(|to| to.to_string_lossy().starts_with("pipe:"))
    });
    let pipes: Vec<i32> = pipes
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    for pipe in pipes {
        let mut left = bytes;
        while !left.is_empty() {
            // SAFETY: the bytes are there for the length of the call, and a descriptor that takes none answers -1.
            let written = unsafe { write(pipe, left.as_ptr(), left.len()) };
            let Ok(written @ 1..) = usize::try_from(written) else {
                break;
            };
            left = &left[written..];
        }
    }
}

/// Opens files until the system gives no more.
pub fn use_up_descriptors() {
    while let Ok(file) = File::open("/dev/null") {
        std::mem::forget(file);
    }
    let _ = std::io::stderr().flush();
}
