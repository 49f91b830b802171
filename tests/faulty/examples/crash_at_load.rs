//! A library that aborts the process while it is being loaded, before any symbol of it can be read.

extern "C" fn crash() {
    std::process::abort();
}

// SAFETY: the system's loader calls each entry of this section as a function of no arguments, which it is.
#[used]
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: extern "C" fn() = crash;
