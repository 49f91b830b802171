//! A [`Device`] by the CUDA driver. One context and one stream for all models ([`super::cards`]); everything is in
//! order on it, and threads take turns. The driver's libraries are looked for before anything of cudarc is called, which panics
//! without them.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ffi::{CString, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys;
use longhaul_plugin_api::author::Result;
use longhaul_plugin_api::error::{ErrorKind, PluginError};

use super::blas::{self, Blas};
use super::compiler;
use super::device::{Device, Kernel, KernelSource, Launch, Product, Ptr, Recording};
use super::limits::{Bounds, Limits, MOST_PARAMETER_BYTES, PLAIN_SHARED_BYTES};
use super::storage::Storage;
use super::turn::{Turn, Turns};
use super::uploads::Uploads;
use crate::precision::Precision;

/// A card. Its parts are given back in their order here, the context last.
pub struct Driver {
    index: u32,
    architecture: u32,
    precision: Precision,
    limits: Limits,
    turns: Turns,
    /// Whether work is only being looked at, see [`Driver::record`].
    rehearsing: AtomicBool,
    blas: Blas,
    modules: Mutex<HashMap<(usize, usize), Module>>,
    uploads: Mutex<Uploads>,
    stream: Stream,
    context: Context,
}

/// A card's primary context, kept until this is dropped.
struct Context {
    device: sys::CUdevice,
    handle: sys::CUcontext,
}

impl Context {
    /// Opens it, and makes it current on this thread.
    fn open(device: sys::CUdevice) -> std::result::Result<Self, DriverError> {
        // SAFETY: the device is the driver's own handle, and the context made of it stays retained until drop.
        unsafe {
            let handle = result::primary_ctx::retain(device)?;
            let context = Self { device, handle };
            result::ctx::set_current(handle)?;
            Ok(context)
        }
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: retained by `open`, released once.
        let _ = unsafe { result::primary_ctx::release(self.device) };
    }
}

/// A stream of the current context.
struct Stream(sys::CUstream);

impl Drop for Stream {
    fn drop(&mut self) {
        // SAFETY: made by `Driver::open`, destroyed once, before its context.
        let _ = unsafe { result::stream::destroy(self.0) };
    }
}

/// A compiled source on the card.
struct Module {
    handle: sys::CUmodule,
    functions: HashMap<&'static str, Function>,
}

impl Drop for Module {
    fn drop(&mut self) {
        // SAFETY: loaded by `Driver::module`, unloaded once, when no work needs it any more.
        let _ = unsafe { result::module::unload(self.handle) };
    }
}

/// A kernel on the card.
#[derive(Clone, Copy)]
struct Function {
    handle: sys::CUfunction,
    bounds: Bounds,
    /// Dynamic shared memory that was asked for.
    shared_bytes: u32,
}

// SAFETY: the driver's handles may be used from any thread once the context is current there, which
// every method sees to; what is mutable here is behind a lock.
unsafe impl Send for Driver {}
// SAFETY: as above.
unsafe impl Sync for Driver {}

/// What to do about an error, after its name.
fn advice(code: sys::CUresult) -> &'static str {
    use sys::CUresult as C;
    match code {
        C::CUDA_ERROR_OUT_OF_MEMORY => {
            "; choose a smaller model, batch or length, or give the card to fewer --jobs"
        }
        C::CUDA_ERROR_ILLEGAL_ADDRESS
        | C::CUDA_ERROR_MISALIGNED_ADDRESS
        | C::CUDA_ERROR_LAUNCH_FAILED => {
            "; a kernel of this or earlier work is wrong, which compute-sanitizer names"
        }
        C::CUDA_ERROR_NO_BINARY_FOR_GPU
        | C::CUDA_ERROR_INVALID_IMAGE
        | C::CUDA_ERROR_UNSUPPORTED_PTX_VERSION => {
            "; the driver does not take what NVRTC makes: update it, or use an older NVRTC"
        }
        C::CUDA_ERROR_DEVICE_UNAVAILABLE
        | C::CUDA_ERROR_NO_DEVICE
        | C::CUDA_ERROR_ECC_UNCORRECTABLE
        | C::CUDA_ERROR_UNKNOWN => "; see with nvidia-smi whether the card is there and free",
        _ => "",
    }
}

/// What the driver said, as an error with the code's name.
pub(super) fn failed(what: &str, error: DriverError) -> PluginError {
    let name = error
        .error_name()
        .map_or_else(|_| format!("{:?}", error.0), compiler::text);
    let meaning = error
        .error_string()
        .map_or_else(|_| String::new(), compiler::text);
    let kind = match error.0 {
        sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => ErrorKind::OutOfMemory,
        _ => ErrorKind::Device,
    };
    let advice = advice(error.0);
    PluginError::new(kind, format!("{what}: {name} ({meaning}){advice}"))
}

impl Driver {
    /// Opens card `index`, which multiplies as `LONGHAUL_PRODUCTS` says.
    ///
    /// # Errors
    /// A `LONGHAUL_PRODUCTS` that is unknown; those of [`Driver::open_with`].
    pub fn open(index: u32) -> Result<Self> {
        Self::open_with(index, Precision::from_environment()?)
    }

    /// Opens card `index` with products of this precision, whatever the environment says.
    ///
    /// # Errors
    /// No driver, no such card, no compiler, no memory; a precision that the card does not have.
    pub fn open_with(index: u32, precision: Precision) -> Result<Self> {
        // SAFETY: looks for the library, which runs its initialisers.
        if !unsafe { sys::is_culib_present() } {
            return Err(PluginError::device(format!(
                "cuda:{index} was asked for, and this machine has no NVIDIA driver (libcuda.so); use --device cpu"
            )));
        }
        compiler::version()?;
        let step =
            |what: &'static str| move |error| failed(&format!("cuda:{index}, {what}"), error);
        result::init().map_err(step("cuInit"))?;
        let count = result::device::get_count().map_err(step("cuDeviceGetCount"))?;
        if index >= count.max(0) as u32 {
            return Err(PluginError::device(format!(
                "cuda:{index} was asked for, and this machine has {count} card{}; `longhaul devices` lists what is here",
                if count == 1 { "" } else { "s" }
            )));
        }
        let device = result::device::get(index as i32).map_err(step("cuDeviceGet"))?;
        let limits = Limits::of(device).map_err(step("cuDeviceGetAttribute"))?;
        // SAFETY: the device is the driver's own handle.
        let (major, minor) = unsafe {
            use sys::CUdevice_attribute::{
                CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR as MAJOR,
                CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR as MINOR,
            };
            let attribute = |which| {
                result::device::get_attribute(device, which).map_err(step("cuDeviceGetAttribute"))
            };
            (attribute(MAJOR)?, attribute(MINOR)?)
        };
        let architecture = (10 * major + minor) as u32;
        precision.check(architecture)?;
        // From here on what was made is given back when a later step fails, the last first.
        let context = Context::open(device).map_err(step("opening the card's context"))?;
        let stream = result::stream::create(result::stream::StreamKind::NonBlocking)
            .map(Stream)
            .map_err(step("cuStreamCreate"))?;
        let blas = Blas::new(index, precision)?;
        Ok(Self {
            index,
            architecture,
            precision,
            limits,
            turns: Turns::default(),
            rehearsing: AtomicBool::new(false),
            blas,
            modules: Mutex::default(),
            uploads: Mutex::default(),
            stream,
            context,
        })
    }

    /// Waits for this thread's turn and makes the context current on it.
    fn enter(&self) -> Result<Turn<'_>> {
        let turn = self.turns.take();
        // SAFETY: the context is retained as long as this lives.
        unsafe { result::ctx::set_current(self.context.handle) }
            .map_err(|error| self.failed("cuCtxSetCurrent", error))?;
        Ok(turn)
    }

    fn failed(&self, what: &str, error: DriverError) -> PluginError {
        failed(&format!("cuda:{}, {what}", self.index), error)
    }

    fn module(&self, source: &'static KernelSource) -> Result<Module> {
        let code = compiler::cubin(source, Storage::Float32, self.architecture)?;
        // SAFETY: the bytes are a whole cubin, made for this architecture by NVRTC.
        let handle = unsafe { result::module::load_data(code.as_ptr().cast()) }
            .map_err(|error| self.failed(&format!("loading {}", source.file), error))?;
        Ok(Module {
            handle,
            functions: HashMap::new(),
        })
    }

    /// A kernel that may be launched so.
    fn function(&self, kernel: Kernel, launch: Launch, params: usize) -> Result<sys::CUfunction> {
        let mut modules = self
            .modules
            .lock()
            .map_err(|_| PluginError::internal("an earlier launch panicked"))?;
        let module = match modules.entry(identity(kernel.source)) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => place.insert(self.module(kernel.source)?),
        };
        let what = || format!("{}, {}", kernel.source.file, kernel.name);
        let function = match module.functions.entry(kernel.name) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => {
                let function = Function::find(module.handle, kernel.name)
                    .map_err(|error| self.failed(&what(), error))?;
                place.insert(function)
            }
        };
        let checked = self.limits.check(function.bounds, launch, params);
        checked.map_err(|why| {
            PluginError::unsupported(format!("cuda:{}, {}: {why}", self.index, what()))
        })?;
        if launch.shared_bytes > function.shared_bytes {
            function.allow(launch.shared_bytes).map_err(|error| {
                let bytes = launch.shared_bytes;
                self.failed(
                    &format!("{}, {bytes} bytes of shared memory", what()),
                    error,
                )
            })?;
        }
        Ok(function.handle)
    }
}

impl Function {
    fn find(module: sys::CUmodule, name: &str) -> std::result::Result<Self, DriverError> {
        use sys::CUfunction_attribute_enum::{
            CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK as THREADS,
            CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES as STATIC_BYTES,
        };
        // A kernel's name is a word of C++ and has no NUL.
        let name =
            CString::new(name).map_err(|_| DriverError(sys::CUresult::CUDA_ERROR_NOT_FOUND))?;
        // SAFETY: the module is loaded, and stays so as long as the function is kept.
        unsafe {
            let handle = result::module::get_function(module, name)?;
            let ask = |which| {
                let value = result::function::get_function_attribute(handle, which)?;
                Ok(u32::try_from(value).unwrap_or(0))
            };
            Ok(Self {
                handle,
                bounds: Bounds {
                    threads: ask(THREADS)?,
                    static_bytes: ask(STATIC_BYTES)?,
                },
                shared_bytes: PLAIN_SHARED_BYTES,
            })
        }
    }

    /// Asks for more dynamic shared memory.
    fn allow(&mut self, bytes: u32) -> std::result::Result<(), DriverError> {
        let which = sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        // SAFETY: the function is the driver's own handle.
        unsafe { result::function::set_function_attribute(self.handle, which, bytes as i32) }?;
        self.shared_bytes = bytes;
        Ok(())
    }
}

fn identity(source: &'static KernelSource) -> (usize, usize) {
    (source.text.as_ptr() as usize, source.text.len())
}

/// A captured graph, given back when it is instantiated or not needed.
struct Captured(sys::CUgraph);

impl Drop for Captured {
    fn drop(&mut self) {
        // SAFETY: ended by `end_capture`, destroyed once.
        let _ = unsafe { result::graph::destroy(self.0) };
    }
}

/// A CUDA graph, ready to run.
struct CudaGraph {
    graph: sys::CUgraphExec,
    nodes: usize,
    context: sys::CUcontext,
}

// SAFETY: a graph's handle may be used from any thread.
unsafe impl Send for CudaGraph {}

impl Recording for CudaGraph {
    fn nodes(&self) -> usize {
        self.nodes
    }
}

impl Drop for CudaGraph {
    fn drop(&mut self) {
        // SAFETY: instantiated by `record`, destroyed once, before the driver that retains its context.
        unsafe {
            let _ = result::ctx::set_current(self.context);
            let _ = result::graph::exec_destroy(self.graph);
        }
    }
}

impl Device for Driver {
    fn precision(&self) -> Precision {
        self.precision
    }

    fn allocate(&self, bytes: usize) -> Result<Ptr> {
        let _turn = self.enter()?;
        // SAFETY: the memory is only used through addresses that `allocate` gave, until `free`.
        let memory = unsafe { result::malloc_sync(bytes.max(1)) };
        memory
            .map(Ptr)
            .map_err(|error| self.failed(&format!("asking for {bytes} bytes"), error))
    }

    fn free(&self, memory: Ptr) {
        if let Ok(_turn) = self.enter() {
            // SAFETY: given by `allocate`, freed once; the driver waits for work that uses it.
            let _ = unsafe { result::free_sync(memory.0) };
        }
    }

    fn upload(&self, to: Ptr, bytes: &[u8]) -> Result<()> {
        let _turn = self.enter()?;
        let mut uploads = self
            .uploads
            .lock()
            .map_err(|_| PluginError::internal("an earlier upload panicked"))?;
        uploads
            .upload(to.0, bytes, self.stream.0)
            .map_err(|(what, error)| self.failed(what, error))
    }

    fn download(&self, from: Ptr, bytes: &mut [u8]) -> Result<()> {
        let _turn = self.enter()?;
        // SAFETY: the engine's sizes; the stream is waited for before the borrow ends.
        unsafe { result::memcpy_dtoh_async(bytes, from.0, self.stream.0) }
            .map_err(|error| self.failed("a download", error))?;
        self.synchronize()
    }

    fn copy(&self, to: Ptr, from: Ptr, bytes: usize) -> Result<()> {
        let _turn = self.enter()?;
        if self.rehearsing.load(Ordering::Relaxed) {
            return Ok(());
        }
        // SAFETY: the engine's sizes.
        unsafe { result::memcpy_dtod_async(to.0, from.0, bytes, self.stream.0) }
            .map_err(|error| self.failed("a copy", error))
    }

    fn fill(&self, to: Ptr, word: u32, count: usize) -> Result<()> {
        let _turn = self.enter()?;
        if self.rehearsing.load(Ordering::Relaxed) {
            return Ok(());
        }
        // SAFETY: the engine's sizes.
        unsafe { sys::cuMemsetD32Async(to.0, word, count, self.stream.0) }
            .result()
            .map_err(|error| self.failed("a fill", error))
    }

    fn fill_rows(&self, to: Ptr, word: u32, [rows, cols, stride]: [usize; 3]) -> Result<()> {
        let _turn = self.enter()?;
        if self.rehearsing.load(Ordering::Relaxed) {
            return Ok(());
        }
        // SAFETY: the engine's sizes.
        unsafe { sys::cuMemsetD2D32Async(to.0, 4 * stride, word, cols, rows, self.stream.0) }
            .result()
            .map_err(|error| self.failed("a fill of columns", error))
    }

    fn load(&self, sources: &[&'static KernelSource]) -> Result<()> {
        let _turn = self.enter()?;
        let mut modules = self
            .modules
            .lock()
            .map_err(|_| PluginError::internal("an earlier launch panicked"))?;
        for source in sources {
            if let Entry::Vacant(place) = modules.entry(identity(source)) {
                place.insert(self.module(source)?);
            }
        }
        Ok(())
    }

    fn launch(&self, kernel: Kernel, launch: Launch, params: &[u8]) -> Result<()> {
        let _turn = self.enter()?;
        let function = self.function(kernel, launch, params.len())?;
        if self.rehearsing.load(Ordering::Relaxed) {
            return Ok(());
        }
        // The driver copies the parameter from here, aligned for its eight-byte fields.
        let mut words = [0u64; MOST_PARAMETER_BYTES / 8];
        for (word, bytes) in words.iter_mut().zip(params.chunks(8)) {
            let mut eight = [0; 8];
            eight[..bytes.len()].copy_from_slice(bytes);
            *word = u64::from_ne_bytes(eight);
        }
        let mut arguments = [words.as_mut_ptr().cast::<c_void>()];
        let tuple = |of: [u32; 3]| (of[0], of[1], of[2]);
        // SAFETY: the function takes one struct by value, whose bytes these are; the addresses inside are
        // the engine's.
        unsafe {
            result::launch_kernel(
                function,
                tuple(launch.grid),
                tuple(launch.block),
                launch.shared_bytes,
                self.stream.0,
                &mut arguments,
            )
        }
        .map_err(|error| {
            self.failed(
                &format!("{}, {} ({launch:?})", kernel.source.file, kernel.name),
                error,
            )
        })
    }

    fn product(&self, product: Product) -> Result<()> {
        let _turn = self.enter()?;
        let rehearsing = self.rehearsing.load(Ordering::Relaxed);
        if rehearsing {
            self.blas.choose(&product).map(|_| ())
        } else {
            self.blas.product(&product, self.stream.0)
        }
    }

    fn takes(&self, product: &Product) -> Result<bool> {
        let _turn = self.enter()?;
        self.blas.takes(product)
    }

    fn record(&self, work: &mut dyn FnMut() -> Result<()>) -> Result<Box<dyn Recording>> {
        let _turn = self.enter()?;
        // A rehearsal chooses how to multiply: the library may refuse to be asked while a stream captures.
        self.rehearsing.store(true, Ordering::Relaxed);
        let rehearsed = catch_unwind(AssertUnwindSafe(&mut *work));
        self.rehearsing.store(false, Ordering::Relaxed);
        rehearsed.unwrap_or_else(|panic| resume_unwind(panic))?;
        let alone = blas::alone();
        // Relaxed: first uses of kernels may load code, and nothing here depends on another stream.
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
        // SAFETY: the stream is ours.
        unsafe { result::stream::begin_capture(self.stream.0, mode) }
            .map_err(|error| self.failed("cuStreamBeginCapture", error))?;
        let worked = catch_unwind(AssertUnwindSafe(work));
        // SAFETY: a capture was begun above; it must end, whatever `work` did.
        let graph = unsafe { result::stream::end_capture(self.stream.0) };
        let graph = graph
            .map(Captured)
            .map_err(|error| self.failed("cuStreamEndCapture", error));
        drop(alone);
        worked.unwrap_or_else(|panic| resume_unwind(panic))?;
        let graph = graph?;
        let mut nodes = 0;
        // SAFETY: the graph was just captured; without room for nodes only their number is written.
        unsafe { sys::cuGraphGetNodes(graph.0, std::ptr::null_mut(), &raw mut nodes) }
            .result()
            .map_err(|error| self.failed("cuGraphGetNodes", error))?;
        // SAFETY: the graph was just captured.
        let ready =
            unsafe { result::graph::instantiate(graph.0, sys::CUgraphInstantiate_flags(0)) };
        Ok(Box::new(CudaGraph {
            graph: ready.map_err(|error| self.failed("cuGraphInstantiate", error))?,
            nodes,
            context: self.context.handle,
        }))
    }

    fn replay(&self, recording: &dyn Recording) -> Result<()> {
        let _turn = self.enter()?;
        let recording: &dyn std::any::Any = recording;
        let graph = recording
            .downcast_ref::<CudaGraph>()
            .ok_or_else(|| PluginError::internal("a recording of another device"))?;
        // SAFETY: instantiated by `record`; the memory it works on is alive, or it would have been dropped.
        unsafe { result::graph::launch(graph.graph, self.stream.0) }
            .map_err(|error| self.failed("cuGraphLaunch", error))
    }

    fn synchronize(&self) -> Result<()> {
        let _turn = self.enter()?;
        // SAFETY: the stream is ours.
        unsafe { result::stream::synchronize(self.stream.0) }
            .map_err(|error| self.failed("work on the card", error))
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // The parts go after this, with the context current; errors of a lost card are ignored.
        let _ = self.synchronize();
    }
}
