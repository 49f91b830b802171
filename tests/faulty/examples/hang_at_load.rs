//! A library whose loading never ends.

extern "C" fn hang() {
    loop {
        std::thread::sleep(std::time::Duration::from_secs(3600));
    }
}

// SAFETY: the system's loader calls each entry of this section as a function of no arguments, which it is.
#[used]
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: extern "C" fn() = hang;
