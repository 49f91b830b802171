//! A CUDA driver (`libcuda`), runtime compiler (`libnvrtc`) and matrix library (`libcublasLt`) without a
//! card: one library with the C functions that Longhaul calls, put on `LD_LIBRARY_PATH` under those names.
//! What is checked, what runs and what the environment sets stands in the README.
//!
//! Rules: an answer is the code that a real driver gives, and every refusal is a line on standard error too.
//! The world's lock is never held while a stream is waited for.

/// C functions, exported; `answer` makes their number out of what the body gives.
macro_rules! c_functions {
    ($answer:ident; $(fn $name:ident($($argument:ident: $kind:ty),* $(,)?) $body:block)*) => {
        $(
            #[unsafe(no_mangle)]
            extern "C" fn $name($($argument: $kind),*) -> std::ffi::c_int {
                $answer(move || $body)
            }
        )*
    };
}

mod calls;
mod code;
mod compiler;
mod log;
mod matmul;
mod memory;
mod products;
mod settings;
mod stream;
mod work;
mod world;
