//! The driver's result codes: their numbers, names and texts.

use std::ffi::{CStr, c_int};
use std::fmt::Display;

macro_rules! codes {
    ($($name:ident = $number:literal, $text:literal, $meaning:literal;)*) => {
        /// Why a call fails.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(i32)]
        pub enum Code { $($name = $number),* }

        impl Code {
            /// The code of a number that is one.
            pub fn of(number: c_int) -> Option<Self> {
                match number { $($number => Some(Self::$name),)* _ => None }
            }

            /// Its name in `cuda.h`, and what it means.
            pub fn texts(self) -> (&'static CStr, &'static CStr) {
                match self { $(Self::$name => ($text, $meaning)),* }
            }
        }
    };
}

codes! {
    InvalidValue = 1, c"CUDA_ERROR_INVALID_VALUE", c"invalid argument";
    OutOfMemory = 2, c"CUDA_ERROR_OUT_OF_MEMORY", c"out of memory";
    NotInitialized = 3, c"CUDA_ERROR_NOT_INITIALIZED", c"initialization error";
    DeviceUnavailable = 46, c"CUDA_ERROR_DEVICE_UNAVAILABLE", c"CUDA-capable device(s) is/are busy or unavailable";
    NoDevice = 100, c"CUDA_ERROR_NO_DEVICE", c"no CUDA-capable device is detected";
    InvalidDevice = 101, c"CUDA_ERROR_INVALID_DEVICE", c"invalid device ordinal";
    InvalidImage = 200, c"CUDA_ERROR_INVALID_IMAGE", c"device kernel image is invalid";
    InvalidContext = 201, c"CUDA_ERROR_INVALID_CONTEXT", c"invalid device context";
    InvalidHandle = 400, c"CUDA_ERROR_INVALID_HANDLE", c"invalid resource handle";
    NotFound = 500, c"CUDA_ERROR_NOT_FOUND", c"named symbol not found";
    NotReady = 600, c"CUDA_ERROR_NOT_READY", c"device not ready";
    IllegalAddress = 700, c"CUDA_ERROR_ILLEGAL_ADDRESS", c"an illegal memory access was encountered";
    LaunchOutOfResources = 701, c"CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES", c"too many resources requested for launch";
    LaunchFailed = 719, c"CUDA_ERROR_LAUNCH_FAILED", c"unspecified launch failure";
    CaptureUnsupported = 900, c"CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED", c"operation not permitted when stream is capturing";
    CaptureInvalidated = 901, c"CUDA_ERROR_STREAM_CAPTURE_INVALIDATED", c"operation failed due to a previous error during capture";
    CapturedEvent = 907, c"CUDA_ERROR_CAPTURED_EVENT", c"operation not permitted on an event last recorded in a capturing stream";
    CaptureWrongThread = 908, c"CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD", c"attempt to terminate a thread-local capture sequence from another thread";
}

/// What a call comes to.
pub type Outcome<T = ()> = Result<T, Code>;

/// A code, with the reason for whoever reads standard error.
pub fn refuse(code: Code, why: impl Display) -> Code {
    eprintln!(
        "simulated CUDA: {why} ({})",
        code.texts().0.to_string_lossy()
    );
    code
}

/// A refusal as a result.
pub fn fail<T>(code: Code, why: impl Display) -> Outcome<T> {
    Err(refuse(code, why))
}

/// Ends the process: a program did what a real driver answers with corrupted memory.
pub fn abort(why: impl Display) -> ! {
    eprintln!("simulated CUDA: {why}");
    std::process::abort()
}
