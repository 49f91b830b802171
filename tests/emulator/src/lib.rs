//! A [`Device`] without a card: memory is the host's, and a launch runs the same `.cu` text, compiled by
//! the system's C++ compiler against `emulation.hpp`, which stands in for CUDA's execution model. For
//! tests only; no plugin contains any of it.
//!
//! `LONGHAUL_EMULATOR_SANITIZE=1` compiles with the address and undefined-behaviour sanitizers; the process
//! then needs libasan in `LD_PRELOAD`. `LONGHAUL_KERNEL_SOURCES=DIR` leaves the text of every source that is
//! loaded in DIR, for the kit's example `kernels`.

pub mod native;
pub mod plugin;
pub mod stored;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use longhaul_plugin_kit::cuda::device::{
    Device, DeviceMat, Kernel, KernelSource, Launch, Product, Ptr, Recording,
};
use longhaul_plugin_kit::cuda::precision::Precision;
use longhaul_plugin_kit::cuda::source::{own_text, whole_text};
use longhaul_plugin_kit::cuda::storage::Storage;
use longhaul_plugin_kit::{PluginError, Result};
use sha2::{Digest, Sha256};

use native::{CompileError, HEADER, Library, NativeLaunch};

/// What a device has been asked to do.
#[derive(Clone)]
enum Work {
    Copy(Ptr, Ptr, usize),
    Fill(Ptr, u32, usize),
    Launch(Kernel, Launch, Vec<u8>),
    Product(Product),
}

/// A list of work.
struct Recorded(Vec<Work>);

impl Recording for Recorded {}

/// The emulated device.
pub struct Emulator {
    folder: PathBuf,
    sanitize: bool,
    reversed: bool,
    precision: Precision,
    storage: Storage,
    libraries: Mutex<HashMap<(usize, usize), Library>>,
    memory: Mutex<HashMap<u64, Vec<u64>>>,
    recording: Mutex<Option<Vec<Work>>>,
}

impl Emulator {
    /// A device that keeps compiled kernels under `folder`, whose products are strict. With `reversed` the
    /// blocks run from the last to the first, and so do the threads of each.
    pub fn new(folder: impl Into<PathBuf>, reversed: bool) -> Self {
        Self {
            folder: folder.into(),
            sanitize: sanitized(),
            reversed,
            precision: Precision::Float32,
            storage: Storage::Float32,
            libraries: Mutex::default(),
            memory: Mutex::default(),
            recording: Mutex::default(),
        }
    }

    /// A device that keeps compiled kernels beside this test's other build products.
    pub fn beside_target(reversed: bool) -> Self {
        let program = std::env::current_exe().expect("a test has a file");
        let folder = program.ancestors().nth(2).expect("in target/PROFILE/deps");
        Self::new(folder.join("emulated-kernels"), reversed)
    }

    /// The same device with products of another precision.
    pub fn with_precision(self, precision: Precision) -> Self {
        Self { precision, ..self }
    }

    fn compile(&self, source: &KernelSource) -> Result<Library> {
        let text = whole_text(source, self.storage);
        let mut hash = Sha256::new();
        let sanitized = if self.sanitize { "sanitized" } else { "plain" };
        for part in [HEADER, &text, sanitized].iter().chain(native::flags()) {
            hash.update(part);
        }
        let name: String = hash
            .finalize()
            .iter()
            .take(12)
            .map(|byte| format!("{byte:02x}"))
            .collect();
        if let Some(folder) = std::env::var_os("LONGHAUL_KERNEL_SOURCES")
            && self.storage == Storage::Float32
        {
            leave_source(Path::new(&folder), source, &name)?;
        }
        let library = self.folder.join(format!("{name}.so"));
        if !library.exists() {
            native::compile(&text, &library, self.sanitize).map_err(|error| {
                let file = source.file;
                PluginError::device(match error {
                    CompileError::System(error) => format!("compiling {file}: {error}"),
                    CompileError::Refused(log) => format!("{file} does not compile:\n{log}"),
                })
            })?;
        }
        Library::open(&library)
            .map_err(|error| PluginError::device(format!("{}: {error}", source.file)))
    }

    fn perform(&self, work: &Work) -> Result<()> {
        if let Some(list) = self.recording.lock().expect("no panic holds it").as_mut() {
            list.push(work.clone());
            return Ok(());
        }
        match work {
            Work::Copy(to, from, bytes) => {
                // SAFETY: both are addresses of this process that `allocate` gave; a wrong size is what
                // the address sanitizer is for.
                unsafe { std::ptr::copy(from.0 as *const u8, to.0 as *mut u8, *bytes) };
                Ok(())
            }
            Work::Fill(to, word, count) => {
                // SAFETY: as above.
                unsafe { std::slice::from_raw_parts_mut(to.0 as *mut u32, *count) }.fill(*word);
                Ok(())
            }
            Work::Launch(kernel, launch, params) => self.run_kernel(*kernel, *launch, params),
            Work::Product(product) => {
                multiply(product, self.precision);
                Ok(())
            }
        }
    }

    fn run_kernel(&self, kernel: Kernel, launch: Launch, params: &[u8]) -> Result<()> {
        let fail = |what: String| {
            PluginError::device(format!("{}, {}: {what}", kernel.source.file, kernel.name))
        };
        let libraries = self.libraries.lock().expect("no panic holds it");
        let library = libraries
            .get(&identity(kernel.source))
            .ok_or_else(|| fail("its source was not loaded".into()))?;
        let native = library
            .kernel(kernel.name)
            .ok_or_else(|| fail("no kernel of this name".into()))?;
        let launch = NativeLaunch {
            grid: launch.grid,
            block: launch.block,
            shared_bytes: launch.shared_bytes,
            reversed: u32::from(self.reversed),
        };
        // SAFETY: the library is held open; the addresses are the engine's, which the address sanitizer
        // watches.
        unsafe { native.run(&launch, params) }.map_err(fail)
    }
}

/// Leaves a source where other compilers find it; the name tells texts of one file apart.
fn leave_source(folder: &Path, source: &KernelSource, name: &str) -> Result<()> {
    let stem = source.file.trim_end_matches(".cu");
    let file = folder.join(format!("{stem}.{}.cu", &name[..6]));
    std::fs::create_dir_all(folder)
        .and_then(|()| std::fs::write(&file, own_text(source)))
        .map_err(|error| PluginError::device(format!("{}: {error}", file.display())))
}

fn identity(source: &'static KernelSource) -> (usize, usize) {
    (source.text.as_ptr() as usize, source.text.len())
}

/// A sum of products in float32, of a matrix product `m x n x inner`: in one go or in up to eight parts, by the shape,
/// as a library for cards chooses among its ways by it. So what depends on the order of sums shows here too.
pub fn float32_sum([m, n, inner]: [usize; 3], term: impl Fn(usize) -> f32) -> f32 {
    let mixed = (m as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
        ^ (n as u64).wrapping_mul(0xc2b2_ae3d_27d4_eb4f)
        ^ (inner as u64).wrapping_mul(0x1656_67b1_9e37_79f9);
    let parts = 1 << (mixed >> 62);
    let cut = |part: usize| inner * part / parts;
    let part = |part: usize| (cut(part)..cut(part + 1)).map(&term).sum::<f32>();
    (0..parts).map(part).sum()
}

/// A product of rounded factors in plain loops: sizes here are small, and nothing else is to be trusted.
fn multiply(product: &Product, precision: Precision) {
    let Product {
        a,
        b,
        c,
        alpha,
        beta,
        count,
        a_step,
        b_step,
        c_step,
    } = *product;
    let at = |mat: DeviceMat, step: usize, index: usize, i: usize, j: usize| {
        let (i, j) = if mat.turned { (j, i) } else { (i, j) };
        (mat.data.0 as *mut f32).wrapping_add(index * step + i * mat.row_stride + j)
    };
    for index in 0..count {
        for i in 0..c.rows {
            for j in 0..c.cols {
                // SAFETY: the engine's sizes; the address sanitizer watches what they are wrong about.
                unsafe {
                    let sum = float32_sum([c.rows, c.cols, a.width()], |k| {
                        precision.round(*at(a, a_step, index, i, k))
                            * precision.round(*at(b, b_step, index, k, j))
                    });
                    let place = at(c, c_step, index, i, j);
                    let old = if beta == 0.0 { 0.0 } else { beta * *place };
                    *place = alpha * sum + old;
                }
            }
        }
    }
}

impl Device for Emulator {
    fn precision(&self) -> Precision {
        self.precision
    }

    fn allocate(&self, bytes: usize) -> Result<Ptr> {
        // NaN all over, and never empty, so that every allocation has an address of its own.
        let memory = vec![u64::MAX; bytes.div_ceil(8).max(1)];
        let address = memory.as_ptr() as u64;
        self.memory
            .lock()
            .expect("no panic holds it")
            .insert(address, memory);
        Ok(Ptr(address))
    }

    fn free(&self, memory: Ptr) {
        self.memory
            .lock()
            .expect("no panic holds it")
            .remove(&memory.0);
    }

    fn upload(&self, to: Ptr, bytes: &[u8]) -> Result<()> {
        // SAFETY: an address that `allocate` gave.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to.0 as *mut u8, bytes.len()) };
        Ok(())
    }

    fn download(&self, from: Ptr, bytes: &mut [u8]) -> Result<()> {
        // SAFETY: an address that `allocate` gave.
        unsafe {
            std::ptr::copy_nonoverlapping(from.0 as *const u8, bytes.as_mut_ptr(), bytes.len())
        };
        Ok(())
    }

    fn copy(&self, to: Ptr, from: Ptr, bytes: usize) -> Result<()> {
        self.perform(&Work::Copy(to, from, bytes))
    }

    fn fill(&self, to: Ptr, word: u32, count: usize) -> Result<()> {
        self.perform(&Work::Fill(to, word, count))
    }

    fn load(&self, sources: &[&'static KernelSource]) -> Result<()> {
        for source in sources {
            let mut libraries = self.libraries.lock().expect("no panic holds it");
            if let std::collections::hash_map::Entry::Vacant(place) =
                libraries.entry(identity(source))
            {
                place.insert(self.compile(source)?);
            }
        }
        Ok(())
    }

    fn launch(&self, kernel: Kernel, launch: Launch, params: &[u8]) -> Result<()> {
        self.perform(&Work::Launch(kernel, launch, params.to_vec()))
    }

    fn product(&self, product: Product) -> Result<()> {
        self.perform(&Work::Product(product))
    }

    fn record(&self, work: &mut dyn FnMut() -> Result<()>) -> Result<Box<dyn Recording>> {
        *self.recording.lock().expect("no panic holds it") = Some(Vec::new());
        let result = work();
        let list = self.recording.lock().expect("no panic holds it").take();
        result?;
        Ok(Box::new(Recorded(list.unwrap_or_default())))
    }

    fn replay(&self, recording: &dyn Recording) -> Result<()> {
        let recording: &dyn std::any::Any = recording;
        let Recorded(list) = recording
            .downcast_ref()
            .ok_or_else(|| PluginError::internal("a recording of another device"))?;
        list.iter().try_for_each(|work| self.perform(work))
    }

    fn synchronize(&self) -> Result<()> {
        Ok(())
    }
}

/// Devices that operations are held to: [`orders`], and beside two of these one that stores activations as bfloat16.
pub fn devices() -> Vec<Arc<dyn Device>> {
    devices_of(Precision::Float32)
}

/// The same with products of a precision.
pub fn devices_of(precision: Precision) -> Vec<Arc<dyn Device>> {
    let mut devices = orders(precision);
    if devices.len() > 1 {
        devices.push(Arc::new(stored::StoredBf16::beside_target(precision)));
    }
    devices
}

/// Two devices, one for each order of blocks and threads: what is racy differs between them. One under the
/// sanitizers, which look at other things.
pub fn orders(precision: Precision) -> Vec<Arc<dyn Device>> {
    let orders: &[bool] = if sanitized() {
        &[false]
    } else {
        &[false, true]
    };
    let device = |reversed: &bool| -> Arc<dyn Device> {
        Arc::new(Emulator::beside_target(*reversed).with_precision(precision))
    };
    orders.iter().map(device).collect()
}

fn sanitized() -> bool {
    std::env::var_os("LONGHAUL_EMULATOR_SANITIZE").is_some()
}
