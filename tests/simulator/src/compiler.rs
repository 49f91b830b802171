//! The C functions of NVRTC that Longhaul calls. A "cubin" is a library for this machine.

use std::collections::HashMap;
use std::ffi::{CStr, c_char, c_int};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use longhaul_emulator::native::{CompileError, Instruments, compile};

use crate::calls::Out;
use crate::world::world;

const PROGRAM_CREATION_FAILURE: c_int = 2;
const INVALID_INPUT: c_int = 3;
const INVALID_PROGRAM: c_int = 4;
const INVALID_OPTION: c_int = 5;
const COMPILATION: c_int = 6;
const INTERNAL_ERROR: c_int = 11;

/// Why a call fails: a number of `nvrtcResult`.
type Answer<T = ()> = Result<T, c_int>;

#[derive(Default)]
struct Program {
    text: String,
    log: String,
    code: Vec<u8>,
}

static PROGRAMS: LazyLock<Mutex<HashMap<usize, Program>>> = LazyLock::new(Mutex::default);

fn programs() -> MutexGuard<'static, HashMap<usize, Program>> {
    PROGRAMS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn with<T>(handle: usize, use_it: impl FnOnce(&mut Program) -> Answer<T>) -> Answer<T> {
    programs()
        .get_mut(&handle)
        .map_or(Err(INVALID_PROGRAM), use_it)
}

fn text(pointer: *const c_char) -> Option<String> {
    if pointer.is_null() {
        return None;
    }
    // SAFETY: the contract of the calls: a text ends with a NUL.
    let text = unsafe { CStr::from_ptr(pointer) };
    text.to_str().ok().map(str::to_owned)
}

/// Whether an option is one that is known here.
fn is_known(option: &str) -> bool {
    let architecture = option.strip_prefix("--gpu-architecture=sm_");
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    architecture.is_some_and(is_number)
        || ["--std=c++17", "--restrict", "--ptxas-options=-v"].contains(&option)
}

/// Compiles a text; the bytes, or the status and the log.
fn code_of(text: &str) -> Result<Vec<u8>, (c_int, String)> {
    let system = |error: std::io::Error| (INTERNAL_ERROR, format!("simulated NVRTC: {error}"));
    let folder = tempfile::tempdir().map_err(system)?;
    let library = folder.path().join("code.so");
    compile(text, &library, Instruments::None).map_err(|error| match error {
        CompileError::System(error) => system(error),
        CompileError::Refused(log) => (COMPILATION, log),
    })?;
    std::fs::read(&library).map_err(system)
}

/// The number that a call answers with.
fn answer(call: impl FnOnce() -> Answer) -> c_int {
    call().err().unwrap_or(0)
}

c_functions! {
    answer;

    fn nvrtcVersion(major: Out<c_int>, minor: Out<c_int>) {
        major.put(13).and_then(|()| minor.put(0)).map_err(|_| INVALID_INPUT)
    }

    fn nvrtcCreateProgram(
        place: Out<usize>, source: *const c_char, _name: *const c_char, headers: c_int,
        _header_texts: *const *const c_char, _header_names: *const *const c_char,
    ) {
        let Some(text) = text(source) else {
            return Err(INVALID_INPUT);
        };
        if headers != 0 {
            return Err(PROGRAM_CREATION_FAILURE);
        }
        let handle = world().handle();
        programs().insert(handle, Program { text, ..Program::default() });
        place.put(handle).map_err(|_| INVALID_INPUT)
    }

    fn nvrtcCompileProgram(handle: usize, count: c_int, options: *const *const c_char) {
        for index in 0..count.max(0) as usize {
            // SAFETY: the contract of the call: there are `count` options.
            let option = text(unsafe { *options.add(index) }).unwrap_or_default();
            if !is_known(&option) {
                return with(handle, |program| {
                    program.log = format!("simulated NVRTC: unknown option `{option}`");
                    Err(INVALID_OPTION)
                });
            }
        }
        let source = with(handle, |program| Ok(program.text.clone()))?;
        // The compiler runs without the lock: programs of other threads go on.
        let made = code_of(&source);
        with(handle, |program| match made {
            Ok(code) => {
                program.code = code;
                Ok(())
            }
            Err((status, log)) => {
                program.log = log;
                Err(status)
            }
        })
    }

    fn nvrtcGetProgramLogSize(handle: usize, bytes: Out<usize>) {
        let log = with(handle, |program| Ok(program.log.len() + 1))?;
        bytes.put(log).map_err(|_| INVALID_INPUT)
    }

    fn nvrtcGetProgramLog(handle: usize, place: *mut u8) {
        with(handle, |program| {
            // SAFETY: the contract of the call: the buffer has the size that was asked for.
            unsafe {
                place.copy_from_nonoverlapping(program.log.as_ptr(), program.log.len());
                place.add(program.log.len()).write(0);
            }
            Ok(())
        })
    }

    fn nvrtcGetCUBINSize(handle: usize, bytes: Out<usize>) {
        let code = with(handle, |program| Ok(program.code.len()))?;
        bytes.put(code).map_err(|_| INVALID_INPUT)
    }

    fn nvrtcGetCUBIN(handle: usize, place: *mut u8) {
        with(handle, |program| {
            // SAFETY: as above.
            unsafe { place.copy_from_nonoverlapping(program.code.as_ptr(), program.code.len()) };
            Ok(())
        })
    }

    fn nvrtcDestroyProgram(handle: *mut usize) {
        if handle.is_null() {
            return Err(INVALID_PROGRAM);
        }
        // SAFETY: the contract of the call: it points to a program.
        let known = programs().remove(unsafe { &*handle });
        known.map(|_| ()).ok_or(INVALID_PROGRAM)
    }
}
