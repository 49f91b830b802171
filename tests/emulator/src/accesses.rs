//! What kernels do to memory, access by access: races, reads of what nobody wrote, sectors and banks. The work is
//! `accesses.cpp`'s, which the compiler has kernels call; here is what the device tells it, and its findings in words.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CStr, CString, c_char};
use std::mem::ManuallyDrop;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use longhaul_plugin_kit::cuda::device::{Kernel, Struct};
use longhaul_plugin_kit::{PluginError, Result};

use crate::native::{self, CompileError};

/// What is looked at, as `accesses.cpp` numbers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watched {
    /// Races, and reads of what nobody wrote: they fail a launch.
    pub order: bool,
    /// Sectors and banks: they are counted.
    pub shape: bool,
}

impl Watched {
    /// What the environment asks for, if it does.
    pub fn asked() -> Option<Self> {
        let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let order = is_set("LONGHAUL_EMULATOR_RACES");
        let shape = is_set("LONGHAUL_EMULATOR_ACCESSES");
        (order || shape).then_some(Self { order, shape })
    }
}

#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct Access {
    pc: u64,
    write: u64,
    thread: u64,
    block: [u64; 3],
}

#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct Finding {
    kind: u64,
    address: u64,
    offset: u64,
    bytes: u64,
    shared: u64,
    accesses: [Access; 2],
}

macro_rules! functions {
    ($($name:ident: $kind:ty,)+) => {
        struct Functions {
            $($name: $kind,)+
        }

        impl Functions {
            fn of(library: &libloading::Library) -> std::result::Result<Self, libloading::Error> {
                // SAFETY: accesses.cpp defines them with these types.
                unsafe { Ok(Self { $($name: *library.get(stringify!($name))?,)+ }) }
            }
        }
    };
}

functions! {
    watch_allocate: unsafe extern "C" fn(u64, usize),
    watch_free: unsafe extern "C" fn(u64),
    watch_written: unsafe extern "C" fn(u64, usize, bool),
    watch_is_written: unsafe extern "C" fn(u64, usize) -> bool,
    watch_copied: unsafe extern "C" fn(u64, u64, usize),
    watch_begin: unsafe extern "C" fn(*const c_char, u32),
    watch_end: unsafe extern "C" fn(*mut *const Finding) -> usize,
    watch_library_of: unsafe extern "C" fn(u64, *mut u64) -> *const c_char,
    watch_write_totals: unsafe extern "C" fn(*const c_char),
}

/// The process's library.
pub struct Watcher {
    /// Kernels are linked with it.
    pub file: PathBuf,
    functions: Functions,
    _library: ManuallyDrop<libloading::Library>,
}

impl Watcher {
    /// The process's one, compiled under `folder` where it is not there.
    ///
    /// # Errors
    /// The compiler's or the loader's.
    pub fn of_process(folder: &Path) -> Result<&'static Self> {
        static ONLY: OnceLock<std::result::Result<Watcher, String>> = OnceLock::new();
        let made = ONLY.get_or_init(|| Self::new(folder));
        made.as_ref()
            .map_err(|what| PluginError::device(what.clone()))
    }

    fn new(folder: &Path) -> std::result::Result<Self, String> {
        let name = crate::short_hash(&[native::WATCHER]);
        let file = folder.join(format!("accesses-{name}.so"));
        if !file.exists() {
            native::compile_watcher(&file).map_err(|error| match error {
                CompileError::System(error) => format!("compiling accesses.cpp: {error}"),
                CompileError::Refused(log) => format!("accesses.cpp does not compile:\n{log}"),
            })?;
        }
        let wrong = |error: libloading::Error| format!("{}: {error}", file.display());
        // SAFETY: compiled from our own text, and nothing happens when it is opened.
        let library = unsafe { libloading::Library::new(&file) }.map_err(wrong)?;
        let functions = Functions::of(&library).map_err(wrong)?;
        Ok(Self {
            file,
            functions,
            _library: ManuallyDrop::new(library),
        })
    }

    /// Memory that nobody wrote, in pages of its own.
    pub fn allocate(&self, address: u64, bytes: usize) {
        // SAFETY: this and what follows compares addresses and does not follow them.
        unsafe { (self.functions.watch_allocate)(address, bytes) }
    }

    /// Memory that is no more.
    pub fn free(&self, address: u64) {
        // SAFETY: as above.
        unsafe { (self.functions.watch_free)(address) }
    }

    /// Memory that now is, or no longer counts as, written.
    pub fn written(&self, address: u64, bytes: usize, written: bool) {
        // SAFETY: as above.
        unsafe { (self.functions.watch_written)(address, bytes, written) }
    }

    /// Whether all of this memory was written.
    pub fn is_written(&self, address: u64, bytes: usize) -> bool {
        // SAFETY: as above.
        unsafe { (self.functions.watch_is_written)(address, bytes) }
    }

    /// A copy inside the device.
    pub fn copied(&self, to: u64, from: u64, bytes: usize) {
        // SAFETY: as above.
        unsafe { (self.functions.watch_copied)(to, from, bytes) }
    }

    /// Watches a launch of a kernel with these parameters.
    ///
    /// # Errors
    /// The launch's; else what was found.
    pub fn watch(
        &self,
        kernel: Kernel,
        params: &[u8],
        watched: Watched,
        launch: impl FnOnce() -> std::result::Result<(), String>,
    ) -> std::result::Result<(), String> {
        let name = CString::new(kernel.name).map_err(|error| error.to_string())?;
        let mode = u32::from(watched.order) | u32::from(watched.shape) << 1;
        // SAFETY: the name is copied; the findings are this thread's and stay until its next launch.
        let (result, findings) = unsafe {
            (self.functions.watch_begin)(name.as_ptr(), mode);
            let result = launch();
            let mut first = std::ptr::null();
            let count = (self.functions.watch_end)(&raw mut first);
            let findings = match count {
                0 => Vec::new(),
                _ => std::slice::from_raw_parts(first, count).to_vec(),
            };
            (result, findings)
        };
        result?;
        if findings.is_empty() {
            return Ok(());
        }
        let addresses = addresses(kernel, params);
        let lines = findings.iter().map(|found| self.words(found, &addresses));
        Err(lines.collect::<Vec<_>>().join("\n"))
    }

    /// Adds the sums of all launches so far to a file that [`table`] reads, and forgets them.
    ///
    /// # Errors
    /// A name with a NUL.
    pub fn write_totals(&self, file: &Path) -> std::io::Result<()> {
        let name = CString::new(file.as_os_str().as_encoded_bytes())?;
        // SAFETY: the name lives through the call.
        unsafe { (self.functions.watch_write_totals)(name.as_ptr()) };
        Ok(())
    }

    fn words(&self, found: &Finding, addresses: &[(String, u64)]) -> String {
        let Finding {
            address,
            offset,
            bytes,
            ..
        } = *found;
        let memory = match found.shared {
            0 => {
                // A buffer is what an address among the parameters begins; its end is not known here.
                let within = |at: u64| at <= address && address - at <= offset;
                let before = addresses.iter().filter(|(_, at)| within(*at));
                let nearest = before.max_by_key(|(_, at)| *at);
                let from =
                    nearest.map(|(name, at)| format!("byte {} from `{name}` on, ", address - at));
                let from = from.unwrap_or_default();
                format!("{from}byte {offset} of an allocation of {bytes}")
            }
            _ => format!("byte {offset} of {bytes} of shared memory"),
        };
        let by = |access: &Access| {
            let [x, y, z] = access.block;
            format!("thread {} of block {x}, {y}, {z}", access.thread)
        };
        let verb = |access: &Access| match access.write {
            0 => "reads",
            _ => "writes",
        };
        let [first, second] = &found.accesses;
        let (at, who) = (self.place_of(second.pc), by(second));
        if found.kind == 1 {
            return format!("{at} reads what nobody wrote: {memory}, {who}");
        }
        format!(
            "a race: {at} {} what {} {}, with no barrier between: {memory}, {who} and {}",
            verb(second),
            self.place_of(first.pc),
            verb(first),
            by(first),
        )
    }

    /// File and line of an instruction.
    fn place_of(&self, pc: u64) -> String {
        let mut offset = 0;
        // SAFETY: the name lives as long as the library, and kernels' libraries stay open.
        let library = unsafe {
            let name = (self.functions.watch_library_of)(pc, &raw mut offset);
            if name.is_null() {
                return "?".to_owned();
            }
            CStr::from_ptr(name).to_string_lossy().into_owned()
        };
        let lines = lines_of(&library, &BTreeSet::from([offset]));
        let frames = lines.get(&offset).map(Vec::as_slice).unwrap_or_default();
        own_line(frames)
    }
}

/// Names and values of the addresses among a kernel's parameters, where its struct is known.
fn addresses(kernel: Kernel, params: &[u8]) -> Vec<(String, u64)> {
    // KERNEL(threads, name, Params)
    let before = format!(" {},", kernel.name);
    let declared = kernel.source.text.split_once(&before);
    let name = declared.and_then(|(_, rest)| rest.split(')').next());
    let structs = kernel.source.params;
    let own = structs
        .iter()
        .find(|own| Some(own.name) == name.map(str::trim));
    let mut fields = Vec::new();
    let known =
        own.is_some_and(|own| list_addresses(structs, own, "", &mut 0, &mut fields).is_some());
    let value = |at: usize| Some(u64::from_ne_bytes(*params.get(at..)?.first_chunk()?));
    let of = |(name, at): (String, usize)| Some((name, value(at)?));
    fields
        .into_iter()
        .filter(|_| known)
        .filter_map(of)
        .collect()
}

/// Adds the addresses of a struct that begins at byte `at`, which is behind it afterwards; none where a type is not known.
fn list_addresses(
    structs: &[Struct],
    of: &Struct,
    prefix: &str,
    at: &mut usize,
    found: &mut Vec<(String, usize)>,
) -> Option<()> {
    let known = |name: &str| structs.iter().find(|one| one.name == name);
    if let Some(base) = of.base {
        list_addresses(structs, known(base)?, prefix, at, found)?;
    }
    for (field, &count) in of.fields.split_terminator(',').zip(of.counts) {
        let (kind, name) = field.rsplit_once(' ')?;
        let kind = kind
            .strip_prefix('[')
            .map_or(kind, |array| array.split(';').next().unwrap_or(array));
        for _ in 0..count {
            match kind {
                _ if kind.starts_with('*') => {
                    found.push((format!("{prefix}{name}"), *at));
                    *at += 8;
                }
                "u16" => *at += 2,
                "u32" | "i32" | "f32" => *at += 4,
                "u64" | "f64" => *at += 8,
                other => {
                    let inner = known(other.rsplit("::").next()?)?;
                    list_addresses(structs, inner, &format!("{prefix}{name}."), at, found)?;
                }
            }
        }
    }
    Some(())
}

/// A function and its file and line.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Frame {
    function: String,
    line: String,
}

/// What addr2line knows of places in a library: where each stands, then where that was inlined.
fn lines_of(library: &str, offsets: &BTreeSet<u64>) -> BTreeMap<u64, Vec<Frame>> {
    let mut lines: BTreeMap<u64, Vec<Frame>> = BTreeMap::new();
    let offsets: Vec<String> = offsets
        .iter()
        .map(|offset| format!("{offset:#x}"))
        .collect();
    for some in offsets.chunks(1000) {
        let mut command = Command::new("addr2line");
        command
            .args(["-a", "-i", "-f", "-C", "-e", library])
            .args(some);
        let Ok(output) = command.output() else {
            return lines;
        };
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let (mut at, mut function) = (0, None);
        for line in text.lines() {
            if let Some(address) = line.strip_prefix("0x") {
                at = u64::from_str_radix(address, 16).unwrap_or_default();
                function = None;
                continue;
            }
            match function.take() {
                None => function = Some(line.to_owned()),
                Some(function) => {
                    let line = line.split(" (").next().unwrap_or_default();
                    let line = line.rsplit('/').next().unwrap_or_default().to_owned();
                    lines.entry(at).or_default().push(Frame { function, line });
                }
            }
        }
    }
    lines
}

/// The innermost line that is not of the kit's common texts; of those where there is no other.
fn own_line(frames: &[Frame]) -> String {
    let common = [
        "common.cuh:",
        "mma.cuh:",
        "emulation.hpp:",
        "stl_",
        "vector",
    ];
    let own = |frame: &&Frame| !common.iter().any(|name| frame.line.starts_with(name));
    let frame = frames.iter().find(own).or(frames.first());
    frame.map_or_else(|| "?".to_owned(), |frame| frame.line.clone())
}

/// What the lanes of warps asked for in one line of a kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The kernel.
    pub kernel: String,
    /// File and line.
    pub line: String,
    /// Of shared memory; else of global.
    pub shared: bool,
    /// Writes; else reads.
    pub write: bool,
    /// Accesses by a warp.
    pub requests: u64,
    /// Sectors, or turns of the banks.
    pub passes: u64,
    /// The least that their bytes need.
    pub ideal: u64,
    /// Most passes of one access.
    pub worst: u64,
}

impl Row {
    /// Passes over the least that there can be.
    pub fn over(&self) -> f64 {
        self.passes as f64 / self.ideal.max(1) as f64
    }
}

/// The sums that [`Watcher::write_totals`] left in files, by kernel and line.
///
/// # Errors
/// A file that cannot be read.
pub fn table(files: &[PathBuf]) -> std::io::Result<Vec<Row>> {
    let mut text = String::new();
    for file in files {
        text += &std::fs::read_to_string(file)?;
    }
    let fields: Vec<Vec<&str>> = text
        .lines()
        .map(|line| line.split('\t').collect())
        .collect();
    let offset = |fields: &[&str]| u64::from_str_radix(fields[1].trim_start_matches("0x"), 16);
    let mut offsets: BTreeMap<&str, BTreeSet<u64>> = BTreeMap::new();
    for fields in fields.iter().filter(|fields| fields.len() == 10) {
        let of_library = offsets.entry(fields[0]).or_default();
        of_library.extend(offset(fields));
    }
    let lines: BTreeMap<&str, BTreeMap<u64, Vec<Frame>>> = offsets
        .into_iter()
        .map(|(library, offsets)| (library, lines_of(library, &offsets)))
        .collect();
    let mut rows: BTreeMap<(String, String, bool, bool), Row> = BTreeMap::new();
    for fields in fields.iter().filter(|fields| fields.len() == 10) {
        let frames = offset(fields)
            .ok()
            .and_then(|offset| lines.get(fields[0])?.get(&offset))
            .map(Vec::as_slice)
            .unwrap_or_default();
        let number = |index: usize| fields[index].parse::<u64>().unwrap_or_default();
        // The plain form of an instruction reads lane by lane; what the instruction does is counted by itself.
        let plain = |frame: &Frame| {
            ["load_matrices", "load_turned"]
                .iter()
                .any(|name| frame.function.starts_with(name))
        };
        if number(5) < 16 && frames.first().is_some_and(plain) {
            continue;
        }
        let (shared, write) = (fields[3] == "shared", fields[4] == "write");
        let line = own_line(frames);
        let key = (fields[2].to_owned(), line.clone(), shared, write);
        let row = rows.entry(key).or_insert_with(|| Row {
            kernel: fields[2].to_owned(),
            line,
            shared,
            write,
            requests: 0,
            passes: 0,
            ideal: 0,
            worst: 0,
        });
        row.requests += number(6);
        row.passes += number(7);
        row.ideal += number(8);
        row.worst = row.worst.max(number(9));
    }
    Ok(rows.into_values().collect())
}
