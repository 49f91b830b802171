//! A library that leaves a child behind while it is loaded, in a session of its own and with every descriptor
//! open.

// C's own names, of the library that every process has.
unsafe extern "C" {
    fn fork() -> i32;
    fn setsid() -> i32;
}

extern "C" fn leave_a_child() {
    // SAFETY: the child calls nothing but `setsid` and a sleep, which need no lock that another thread had.
    unsafe {
        if fork() == 0 {
            setsid();
            loop {
                std::thread::sleep(std::time::Duration::from_secs(3600));
            }
        }
    }
}

// SAFETY: the system's loader calls each entry of this section as a function of no arguments, which it is.
#[used]
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: extern "C" fn() = leave_a_child;
