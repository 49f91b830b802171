//! Kernels compiled for this machine: the text that NVRTC would get goes to the system's C++ compiler with
//! `emulation.hpp` in front, and what comes out is opened as a library and run.

use std::ffi::{CStr, c_char};
use std::mem::ManuallyDrop;
use std::path::Path;
use std::process::Command;

/// What stands in for CUDA's execution model.
pub const HEADER: &str = include_str!("emulation.hpp");

/// A launch as `emulation::Launch` has it.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct NativeLaunch {
    /// Blocks in x, y, z.
    pub grid: [u32; 3],
    /// Threads in x, y, z.
    pub block: [u32; 3],
    /// Bytes of dynamic shared memory.
    pub shared_bytes: u32,
    /// Of blocks, and of the threads of each.
    pub order: Order,
}

/// The order in which blocks run, and the threads of each whenever they go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Order {
    /// From the first to the last.
    Forwards = 0,
    /// From the last to the first.
    Backwards = 1,
    /// Neither: neighbours run far apart, and the threads of a block begin elsewhere each time.
    Shuffled = 2,
}

/// What is known of a kernel, as `emulation::Facts` has it.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct Facts {
    /// Bytes of the kernel's one parameter.
    pub params_bytes: usize,
    /// Most threads of a block.
    pub threads: u32,
}

type Entry = unsafe extern "C" fn(*const NativeLaunch, *const u8, usize) -> *const c_char;
type FactsOf = unsafe extern "C" fn() -> Facts;
type ParamsOf = unsafe extern "C" fn() -> *const c_char;

/// What stands in for the compiler's own functions where accesses are watched.
pub const WATCHER: &str = include_str!("accesses.cpp");

/// What kernels are compiled with besides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Instruments<'a> {
    /// Nothing.
    None,
    /// The address and undefined-behaviour sanitizers.
    Sanitizers,
    /// A call before each access, of a function in this library, which [`compile_watcher`] made.
    Watcher(&'a Path),
}

/// Why there is no library.
#[derive(Debug)]
pub enum CompileError {
    /// The compiler did not run, or a file could not be written.
    System(std::io::Error),
    /// The compiler refuses the text; its log.
    Refused(String),
}

impl From<std::io::Error> for CompileError {
    fn from(error: std::io::Error) -> Self {
        Self::System(error)
    }
}

/// What the compiler is told of this machine.
pub fn flags() -> &'static [&'static str] {
    if std::arch::is_x86_feature_detected!("fma") {
        &["-mfma", "-ffp-contract=off"]
    } else {
        &["-ffp-contract=off"]
    }
}

/// Compiles a text to `library`, which appears under its name when it is whole. The compiler is `CXX`, else
/// `g++`.
///
/// # Errors
/// The system's, or the compiler's log.
pub fn compile(
    text: &str,
    library: &Path,
    instruments: Instruments<'_>,
) -> Result<(), CompileError> {
    build(library, |command, work| {
        let header = work.join("emulation.hpp");
        let input = work.join("kernel.cpp");
        std::fs::write(&header, HEADER)?;
        std::fs::write(&input, text)?;
        command.arg("-O1");
        // A static of an inline function is a library's own: else unloading the first one frees what the
        // others use.
        command.arg("-fno-gnu-unique");
        command.args(["-Wno-unused-function", "-Wno-unknown-pragmas"]);
        // A card's fused product and sum is one instruction here too, where there is one, and only where it is
        // written.
        command.args(flags());
        // The sanitizers take getcontext for setjmp.
        command.args(["-Wno-clobbered", "-include"]);
        command.arg(&header).arg(&input);
        match instruments {
            Instruments::None => command.arg("-g1"),
            Instruments::Sanitizers => command.args([
                "-g1",
                "-fsanitize=address,undefined",
                "-fno-sanitize-recover=undefined",
            ]),
            // With the calls of the thread sanitizer and without its library; -g says what was inlined where. In
            // DWARF 5 addr2line takes some lines for those of another file.
            Instruments::Watcher(watcher) => command
                .args([
                    "-g",
                    "-gdwarf-4",
                    "-DWATCHED",
                    "-fsanitize=thread",
                    "-nodefaultlibs",
                ])
                .arg(watcher)
                .args(["-lstdc++", "-lm", "-lgcc_s", "-lc"]),
        };
        Ok(())
    })
}

/// Compiles what watches the accesses of kernels.
///
/// # Errors
/// The system's, or the compiler's log.
pub fn compile_watcher(library: &Path) -> Result<(), CompileError> {
    build(library, |command, work| {
        let input = work.join("accesses.cpp");
        std::fs::write(&input, WATCHER)?;
        command.arg("-O2").arg(&input);
        Ok(())
    })
}

/// Makes a library of what `source` adds to a command and the folder that it works in.
fn build(
    library: &Path,
    source: impl FnOnce(&mut Command, &Path) -> std::io::Result<()>,
) -> Result<(), CompileError> {
    let folder = library.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let work = tempfile::tempdir_in(folder)?;
    let output = work.path().join("made.so");
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "g++".to_owned());
    let mut command = Command::new(compiler);
    command.args([
        "-std=c++20",
        "-shared",
        "-fPIC",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-o",
    ]);
    command.arg(&output);
    source(&mut command, work.path())?;
    let result = command.output()?;
    if !result.status.success() {
        let log = String::from_utf8_lossy(&result.stderr).into_owned();
        return Err(CompileError::Refused(log));
    }
    Ok(std::fs::rename(&output, library)?)
}

/// A compiled source. It stays open to the end of the process: the thread's storage that it has does not
/// come back, and opening the same file again gives the same library.
pub struct Library(ManuallyDrop<libloading::Library>);

impl Library {
    /// Opens what [`compile`] made.
    ///
    /// # Errors
    /// The loader's.
    pub fn open(path: &Path) -> Result<Self, libloading::Error> {
        // SAFETY: the library was compiled from our own text and has no initialisers with effects.
        unsafe { libloading::Library::new(path) }.map(|library| Self(ManuallyDrop::new(library)))
    }

    /// A kernel by name, if there is one.
    pub fn kernel(&self, name: &str) -> Option<NativeKernel> {
        // SAFETY: KERNEL defines the symbols with these types; the name is a literal of the library, which stays open.
        unsafe {
            let entry = self.0.get::<Entry>(format!("emulate_{name}")).ok()?;
            let facts = self.0.get::<FactsOf>(format!("facts_of_{name}")).ok()?;
            let params = self.0.get::<ParamsOf>(format!("params_of_{name}")).ok()?;
            Some(NativeKernel {
                entry: *entry,
                facts: facts(),
                // Its length stands in front.
                params: CStr::from_ptr(params())
                    .to_str()
                    .ok()?
                    .trim_start_matches(|c: char| c.is_ascii_digit()),
            })
        }
    }
}

/// A kernel; its library must stay open.
#[derive(Clone, Copy)]
pub struct NativeKernel {
    entry: Entry,
    /// What is known of it.
    pub facts: Facts,
    /// The name of its parameter's struct.
    pub params: &'static str,
}

impl NativeKernel {
    /// Runs it over a grid.
    ///
    /// # Safety
    /// Its library is open, and the addresses in `params` are those of memory that the kernel may use as it
    /// does.
    ///
    /// # Errors
    /// What was wrong with the launch, or what went wrong in a block.
    pub unsafe fn run(&self, launch: &NativeLaunch, params: &[u8]) -> Result<(), String> {
        // SAFETY: both pointers are alive for the call; the text that comes back is NUL-terminated and lives
        // until this thread's next call. The rest is the caller's.
        let answer = unsafe {
            let text = (self.entry)(launch, params.as_ptr(), params.len());
            CStr::from_ptr(text).to_string_lossy().into_owned()
        };
        if answer.is_empty() {
            Ok(())
        } else {
            Err(answer)
        }
    }
}
