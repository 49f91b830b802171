//! A [`Device`] without a card: memory is the host's, and a launch runs the same `.cu` text, compiled by
//! the system's C++ compiler against `emulation.hpp`, which stands in for CUDA's execution model. For
//! tests only; no plugin contains any of it.
//!
//! `LONGHAUL_EMULATOR_SANITIZE=1` compiles with the address and undefined-behaviour sanitizers; the process
//! then needs libasan in `LD_PRELOAD`. `LONGHAUL_EMULATOR_RACES=1` watches every access, and fails a launch with a race or
//! a read of what nobody wrote; `LONGHAUL_EMULATOR_ACCESSES=DIR` counts sectors and turns of banks and leaves them in DIR,
//! for the example `accesses`. `LONGHAUL_KERNEL_SOURCES=DIR` leaves the text of every source that is loaded in DIR, and
//! notes of the launches of its kernels, for the kit's example `kernels`.

pub mod accesses;
pub mod native;
pub mod plugin;
mod stored;

use std::any::Any;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use longhaul_plugin_kit::cuda::device::{
    Device, DeviceMat, Epilogue, Kernel, KernelSource, Launch, Product, Ptr, Recording,
};
use longhaul_plugin_kit::cuda::guards::GUARD;
use longhaul_plugin_kit::cuda::memory::POISON;
use longhaul_plugin_kit::cuda::source::{own_text, whole_text};
use longhaul_plugin_kit::cuda::storage::Storage;
use longhaul_plugin_kit::precision::Precision;
use longhaul_plugin_kit::{PluginError, Result};
use sha2::{Digest, Sha256};

use accesses::{Watched, Watcher};
use native::{CompileError, HEADER, Instruments, Library, NativeLaunch, Order, WATCHER};
use stored::Kind;

/// What a device has been asked to do.
#[derive(Clone)]
enum Work {
    Copy(Ptr, Ptr, usize),
    /// A word into rows of so many columns, so far apart.
    Fill(Ptr, u32, [usize; 3]),
    Launch(Kernel, Launch, Vec<u8>),
    Product(Product),
}

/// A source's kernels, and, where its text was left for other compilers, under which name and with which largest launch of
/// each, by threads and then bytes of shared memory.
struct Loaded {
    library: Library,
    /// The same for activations in bfloat16, on a device that stores them so.
    stored: Option<Library>,
    left: Option<PathBuf>,
    launches: HashMap<&'static str, [u32; 2]>,
}

impl Loaded {
    /// Leaves a note of a launch that is larger than those before: an empty file with its sizes as its name, so that tests
    /// in several processes do not get into each other's way.
    fn note(&mut self, kernel: &'static str, launch: Launch) {
        let Some(left) = &self.left else { return };
        let sizes: [u32; 2] = [launch.block.iter().product(), launch.shared_bytes];
        let largest = self.launches.entry(kernel).or_default();
        if sizes <= *largest {
            return;
        }
        *largest = sizes;
        let [threads, shared] = sizes;
        // One that cannot be left shows as a launch without sizes.
        let _ = std::fs::write(
            format!("{}.{kernel}.{threads}.{shared}.launch", left.display()),
            "",
        );
    }
}

/// A list of work.
struct Recorded(Vec<Work>);

impl Recording for Recorded {
    fn nodes(&self) -> usize {
        self.0.len()
    }
}

/// Device memory: its size and what holds it.
type Allocation = (usize, Box<dyn Any + Send>);

/// What is watched is in pages of its own.
#[derive(Clone)]
#[repr(align(4096))]
struct Page(#[expect(dead_code, reason = "only its place counts")] [u64; 512]);

/// Pages that a watcher knows of for as long as they are there: whatever gets the memory afterwards is not the device's.
struct WatchedPages {
    watcher: &'static Watcher,
    pages: Vec<Page>,
}

impl WatchedPages {
    fn new(watcher: &'static Watcher, bytes: usize) -> Self {
        let pages = vec![Page([u64::MAX; 512]); bytes.div_ceil(size_of::<Page>()).max(1)];
        watcher.allocate(pages.as_ptr() as u64, bytes);
        Self { watcher, pages }
    }
}

impl Drop for WatchedPages {
    fn drop(&mut self) {
        self.watcher.free(self.pages.as_ptr() as u64);
    }
}

/// The emulated device.
pub struct Emulator {
    folder: PathBuf,
    sanitize: bool,
    watched: Option<Watched>,
    order: Order,
    precision: Precision,
    storage: Storage,
    has_epilogues: bool,
    libraries: Mutex<HashMap<(usize, usize), Loaded>>,
    /// By address.
    memory: Mutex<BTreeMap<u64, Allocation>>,
    /// What the addresses that launches were given so far are of, where activations are in bfloat16.
    kinds: Mutex<HashMap<u64, Kind>>,
    recording: Mutex<Option<Vec<Work>>>,
}

impl Emulator {
    /// A device that keeps compiled kernels under `folder`, whose products are strict and whose blocks and threads run
    /// forwards.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
            sanitize: sanitized(),
            watched: Watched::asked(),
            order: Order::Forwards,
            precision: Precision::Float32,
            storage: Storage::Float32,
            has_epilogues: true,
            libraries: Mutex::default(),
            memory: Mutex::default(),
            kinds: Mutex::default(),
            recording: Mutex::default(),
        }
    }

    /// A device that keeps compiled kernels beside this test's other build products.
    pub fn beside_target() -> Self {
        let program = std::env::current_exe().expect("a test has a file");
        let folder = program.ancestors().nth(2).expect("in target/PROFILE/deps");
        Self::new(folder.join("emulated-kernels"))
    }

    /// The same device, which takes no product with an epilogue.
    pub fn without_epilogues(self) -> Self {
        Self {
            has_epilogues: false,
            ..self
        }
    }

    /// The same device whose blocks and threads run in another order.
    pub fn with_order(self, order: Order) -> Self {
        Self { order, ..self }
    }

    /// The same device with products of another precision.
    pub fn with_precision(self, precision: Precision) -> Self {
        Self { precision, ..self }
    }

    /// The same device with activations stored so.
    pub fn with_storage(self, storage: Storage) -> Self {
        Self { storage, ..self }
    }

    /// The same device with its kernels' accesses watched.
    pub fn watching(self, watched: Watched) -> Self {
        Self {
            watched: Some(watched),
            ..self
        }
    }

    /// What watches accesses, where it does: not where activations are stored as bfloat16, as what those launches write is
    /// put into memory from outside.
    fn watcher(&self) -> Result<Option<(&'static Watcher, Watched)>> {
        let watcher = |watched| Ok((Watcher::of_process(&self.folder)?, watched));
        let watched = self.watched.filter(|_| self.storage == Storage::Float32);
        watched.map(watcher).transpose()
    }

    fn compile(&self, source: &KernelSource) -> Result<Loaded> {
        let (library, name) = self.library(source, Storage::Float32)?;
        let stored = match self.storage {
            Storage::Float32 => None,
            storage => Some(self.library(source, storage)?.0),
        };
        let folder =
            std::env::var_os("LONGHAUL_KERNEL_SOURCES").filter(|folder| !folder.is_empty());
        let left = folder.map(|folder| leave_source(Path::new(&folder), source, &name));
        Ok(Loaded {
            library,
            stored,
            left: left.transpose()?,
            launches: HashMap::new(),
        })
    }

    /// A source compiled for a storage, and its name among libraries.
    fn library(&self, source: &KernelSource, storage: Storage) -> Result<(Library, String)> {
        let text = whole_text(source, storage);
        let watcher = self.watcher()?;
        let (instruments, kind) = match watcher {
            Some((watcher, _)) => (Instruments::Watcher(&watcher.file), WATCHER),
            None if self.sanitize => (Instruments::Sanitizers, "sanitized"),
            None => (Instruments::None, "plain"),
        };
        let mut parts = vec![HEADER, &text, kind];
        parts.extend(native::flags());
        let name = short_hash(&parts);
        let library = self.folder.join(format!("{name}.so"));
        if !library.exists() {
            native::compile(&text, &library, instruments).map_err(|error| {
                let file = source.file;
                PluginError::device(match error {
                    CompileError::System(error) => format!("compiling {file}: {error}"),
                    CompileError::Refused(log) => format!("{file} does not compile:\n{log}"),
                })
            })?;
        }
        let library = Library::open(&library)
            .map_err(|error| PluginError::device(format!("{}: {error}", source.file)))?;
        Ok((library, name))
    }

    fn perform(&self, work: &Work) -> Result<()> {
        if let Some(list) = self.recording.lock().expect("no panic holds it").as_mut() {
            list.push(work.clone());
            return Ok(());
        }
        let watcher = self.watcher()?.map(|(watcher, _)| watcher);
        match work {
            Work::Copy(to, from, bytes) => {
                if let Some(watcher) = watcher {
                    watcher.copied(to.0, from.0, *bytes);
                }
                // SAFETY: both are addresses of this process that `allocate` gave; a wrong size is what
                // the address sanitizer is for.
                unsafe { std::ptr::copy(from.0 as *const u8, to.0 as *mut u8, *bytes) };
                Ok(())
            }
            Work::Fill(to, word, [rows, cols, stride]) => {
                let memory = self.memory.lock().expect("no panic holds it");
                let size = memory.get(&to.0).map(|(size, _)| *size);
                drop(memory);
                if size == Some(4 * rows * cols) {
                    self.forget_kinds(to.0, 4 * rows * cols);
                }
                for row in 0..*rows {
                    let place = to.value(row * stride);
                    if let Some(watcher) = watcher {
                        watcher.written(place.0, 4 * cols, ![POISON, GUARD].contains(word));
                    }
                    // SAFETY: as above.
                    unsafe { std::slice::from_raw_parts_mut(place.0 as *mut u32, *cols) }
                        .fill(*word);
                }
                Ok(())
            }
            Work::Launch(kernel, launch, params) => self.run_kernel(*kernel, *launch, params),
            Work::Product(product) => {
                if let Some(watcher) = watcher {
                    watch_product(watcher, product)?;
                }
                multiply(product, self.precision);
                Ok(())
            }
        }
    }

    fn run_kernel(&self, kernel: Kernel, launch: Launch, params: &[u8]) -> Result<()> {
        let fail = |what: String| {
            PluginError::device(format!("{}, {}: {what}", kernel.source.file, kernel.name))
        };
        let mut libraries = self.libraries.lock().expect("no panic holds it");
        let loaded = libraries
            .get_mut(&identity(kernel.source))
            .ok_or_else(|| fail("its source was not loaded".into()))?;
        loaded.note(kernel.name, launch);
        let native = loaded
            .library
            .kernel(kernel.name)
            .ok_or_else(|| fail("no kernel of this name".into()))?;
        let launch = NativeLaunch {
            grid: launch.grid,
            block: launch.block,
            shared_bytes: launch.shared_bytes,
            order: self.order,
        };
        // SAFETY: the library is held open; the addresses are the engine's, which the address sanitizer
        // watches.
        let run = || unsafe { native.run(&launch, params) };
        let stored = loaded.stored.as_ref();
        let stored = stored.and_then(|library| library.kernel(kernel.name));
        let result = match (stored, self.watcher()?) {
            (Some(stored), _) => self.run_stored(kernel, &launch, params, [native, stored]),
            (None, Some((watcher, watched))) => watcher.watch(kernel, params, watched, run),
            (None, None) => run(),
        };
        result.map_err(fail)
    }
}

/// Leaves a source where other compilers find it; the name, which is given back without `.cu`, tells texts of one file
/// apart.
fn leave_source(folder: &Path, source: &KernelSource, name: &str) -> Result<PathBuf> {
    let stem = source.file.trim_end_matches(".cu");
    let left = folder.join(format!("{stem}.{}", &name[..6]));
    let file = format!("{}.cu", left.display());
    std::fs::create_dir_all(folder)
        .and_then(|()| std::fs::write(&file, own_text(source)))
        .map_err(|error| PluginError::device(format!("{file}: {error}")))?;
    Ok(left)
}

/// The first digits of a hash, for names of files.
fn short_hash(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    parts.iter().for_each(|part| hash.update(part));
    let bytes = hash.finalize();
    let bytes = bytes.iter().take(12);
    bytes.map(|byte| format!("{byte:02x}")).collect()
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
        added,
        alpha,
        beta,
        epilogue,
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
                    let old = match beta {
                        0.0 => 0.0,
                        _ => beta * *at(added, c_step, index, i, j),
                    };
                    let row = match epilogue {
                        Epilogue::AddRow(row) => *(row.value(j).0 as *const f32),
                        _ => 0.0,
                    };
                    *at(c, c_step, index, i, j) = alpha * sum + old + row;
                }
            }
        }
    }
    if let Epilogue::RowSums(sums) = epilogue {
        for i in 0..c.rows {
            // SAFETY: as above.
            unsafe {
                let sizes = [c.rows, 1, a.width()];
                let sum = float32_sum(sizes, |k| *at(a, a_step, 0, i, k));
                *(sums.value(i).0 as *mut f32) = sum;
            }
        }
    }
}

/// Refuses factors of which a value was not written, and takes note of the result.
fn watch_product(watcher: &Watcher, product: &Product) -> Result<()> {
    let rows = |mat: DeviceMat, step: usize| {
        (0..product.count).flat_map(move |index| {
            (0..mat.rows).map(move |row| mat.data.value(index * step + row * mat.row_stride).0)
        })
    };
    let (a, b, c) = (product.a, product.b, product.c);
    let factors = [(a, product.a_step, "left"), (b, product.b_step, "right")];
    let sum = (product.beta != 0.0).then_some((product.added, product.c_step, "summand"));
    let row = match product.epilogue {
        Epilogue::AddRow(row) => Some((DeviceMat::new(row, 1, c.cols, c.cols), 0, "bias")),
        _ => None,
    };
    for (mat, step, name) in factors.into_iter().chain(sum).chain(row) {
        let unwritten = rows(mat, step).position(|row| !watcher.is_written(row, 4 * mat.cols));
        if let Some(row) = unwritten {
            let (height, width, inner) = (c.rows, c.cols, a.width());
            return Err(PluginError::device(format!(
                "a product {height} x {width} x {inner} reads what nobody wrote, in row {row} of its {name}"
            )));
        }
    }
    rows(c, product.c_step).for_each(|row| watcher.written(row, 4 * c.cols, true));
    if let Epilogue::RowSums(sums) = product.epilogue {
        watcher.written(sums.0, 4 * c.rows, true);
    }
    Ok(())
}

impl Device for Emulator {
    fn precision(&self) -> Precision {
        self.precision
    }

    fn storage(&self) -> Storage {
        self.storage
    }

    fn guarded(&self) -> bool {
        true
    }

    fn allocate(&self, bytes: usize) -> Result<Ptr> {
        // NaN all over, and never empty, so that every allocation has an address of its own.
        let (address, memory): (u64, Box<dyn Any + Send>) = match self.watcher()? {
            Some((watcher, _)) => {
                let memory = WatchedPages::new(watcher, bytes);
                (memory.pages.as_ptr() as u64, Box::new(memory))
            }
            None => {
                let memory = vec![u64::MAX; bytes.div_ceil(8).max(1)];
                (memory.as_ptr() as u64, Box::new(memory))
            }
        };
        self.memory
            .lock()
            .expect("no panic holds it")
            .insert(address, (bytes, memory));
        Ok(Ptr(address))
    }

    fn free(&self, memory: Ptr) {
        let mut all = self.memory.lock().expect("no panic holds it");
        let freed = all.remove(&memory.0);
        drop(all);
        if let Some((size, _)) = freed {
            self.forget_kinds(memory.0, size);
        }
    }

    fn upload(&self, to: Ptr, bytes: &[u8]) -> Result<()> {
        if let Some((watcher, _)) = self.watcher()? {
            watcher.written(to.0, bytes.len(), true);
        }
        // SAFETY: an address that `allocate` gave.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to.0 as *mut u8, bytes.len()) };
        Ok(())
    }

    fn download(&self, from: Ptr, bytes: &mut [u8]) -> Result<()> {
        // SAFETY: an address that `allocate` gave.
        unsafe {
            std::ptr::copy_nonoverlapping(from.0 as *const u8, bytes.as_mut_ptr(), bytes.len())
        };
        let Some((watcher, _)) = self.watcher()? else {
            return Ok(());
        };
        // Bands between buffers are read as nobody wrote them.
        let of_nobody = |(index, word): (usize, &[u8])| {
            let address = from.value(index).0;
            word != GUARD.to_le_bytes() && !watcher.is_written(address, word.len())
        };
        match bytes.chunks(4).enumerate().position(of_nobody) {
            None => Ok(()),
            Some(word) => Err(PluginError::device(format!(
                "a download of {} bytes reads what nobody wrote, from byte {} on",
                bytes.len(),
                4 * word
            ))),
        }
    }

    fn copy(&self, to: Ptr, from: Ptr, bytes: usize) -> Result<()> {
        self.perform(&Work::Copy(to, from, bytes))
    }

    fn fill(&self, to: Ptr, word: u32, count: usize) -> Result<()> {
        self.perform(&Work::Fill(to, word, [1, count, count]))
    }

    fn fill_rows(&self, to: Ptr, word: u32, sizes: [usize; 3]) -> Result<()> {
        self.perform(&Work::Fill(to, word, sizes))
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

    fn takes(&self, product: &Product) -> Result<bool> {
        Ok(self.has_epilogues || product.epilogue == Epilogue::None)
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

/// What operations are held to: [`orders`], and beside two of these a device that stores activations as bfloat16.
pub fn devices() -> Vec<Arc<dyn Device>> {
    devices_of(Precision::Float32)
}

/// The same with products of a precision.
pub fn devices_of(precision: Precision) -> Vec<Arc<dyn Device>> {
    let mut devices = orders(precision);
    if devices.len() > 1 {
        let device = Emulator::beside_target().with_precision(precision);
        devices.push(Arc::new(device.with_storage(Storage::Bf16)));
    }
    devices
}

/// Two devices with different orders of blocks and threads: what is racy differs between them. One under the
/// sanitizers, which look at other things, and where accesses are watched, which tells races in any order.
pub fn orders(precision: Precision) -> Vec<Arc<dyn Device>> {
    let orders: &[Order] = if sanitized() || Watched::asked().is_some() {
        &[Order::Forwards]
    } else {
        &[Order::Shuffled, Order::Backwards]
    };
    let device = |order: &Order| -> Arc<dyn Device> {
        let device = Emulator::beside_target().with_precision(precision);
        Arc::new(device.with_order(*order))
    };
    orders.iter().map(device).collect()
}

fn sanitized() -> bool {
    std::env::var_os("LONGHAUL_EMULATOR_SANITIZE").is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_gets_the_memory_of_a_device_that_is_gone_is_not_watched() {
        let watched = Watched {
            order: true,
            shape: false,
        };
        let device = Emulator::beside_target().watching(watched);
        let (watcher, _) = device.watcher().expect("compiles").expect("watches");
        let x = device.allocate(64).expect("memory");
        assert!(!watcher.is_written(x.0, 64), "nobody wrote it");
        drop(device);
        assert!(watcher.is_written(x.0, 64), "it is nobody's");
    }
}
