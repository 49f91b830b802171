//! A library that takes ever more memory while it is loaded.

extern "C" fn leak() {
    loop {
        let block = vec![1_u8; 16 << 20];
        std::hint::black_box(&block);
        std::mem::forget(block);
        // At less than two gigabytes a second, so that a watcher has a chance.
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

// SAFETY: the system's loader calls each entry of this section as a function of no arguments, which it is.
#[used]
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: extern "C" fn() = leak;
