//! A library that writes without end while it is loaded, to standard output and to standard error.

use std::io::Write;

extern "C" fn flood() {
    let bytes = [b'x'; 1 << 16];
    loop {
        let _ = std::io::stdout().write_all(&bytes);
        let _ = std::io::stderr().write_all(&bytes);
    }
}

// SAFETY: the system's loader calls each entry of this section as a function of no arguments, which it is.
#[used]
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: extern "C" fn() = flood;
