//! A [`Device`] by the CUDA driver. One context and one stream a model; everything is in order on it. The
//! driver's libraries are looked for before anything of cudarc is called, which panics without them.

use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys;
use longhaul_plugin_api::author::Result;
use longhaul_plugin_api::error::{ErrorKind, PluginError};

use super::blas::Blas;
use super::compiler;
use super::device::{Device, Kernel, KernelSource, Launch, Product, Ptr, Recording};
use super::precision::Precision;

/// Dynamic shared memory that a kernel may have without being asked for more.
const PLAIN_SHARED_BYTES: u32 = 48 * 1024;

/// A card.
pub struct Driver {
    index: u32,
    device: sys::CUdevice,
    context: sys::CUcontext,
    stream: sys::CUstream,
    architecture: u32,
    precision: Precision,
    /// Given back before the context is; there until then.
    blas: Option<Blas>,
    /// Whether work is only being looked at, see [`Driver::record`].
    rehearsing: AtomicBool,
    modules: Mutex<HashMap<(usize, usize), Module>>,
}

/// A compiled source on the card.
struct Module {
    handle: sys::CUmodule,
    /// Functions by name, with the dynamic shared memory each may have.
    functions: HashMap<&'static str, (sys::CUfunction, u32)>,
}

// SAFETY: the driver's handles may be used from any thread once the context is current there, which
// every method sees to; what is mutable here is behind a lock.
unsafe impl Send for Driver {}
// SAFETY: as above.
unsafe impl Sync for Driver {}

/// What the driver said, as an error with the code's name.
fn failed(what: &str, error: DriverError) -> PluginError {
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
    PluginError::new(kind, format!("{what}: {name} ({meaning})"))
}

impl Driver {
    /// Opens card `index`.
    ///
    /// # Errors
    /// No driver, no such card, no compiler, no memory; a `LONGHAUL_PRODUCTS` that is unknown or that the card
    /// does not have.
    pub fn open(index: u32) -> Result<Self> {
        // SAFETY: looks for the library, which runs its initialisers.
        if !unsafe { sys::is_culib_present() } {
            return Err(PluginError::device(format!(
                "cuda:{index} was asked for, and this machine has no NVIDIA driver (libcuda.so); use --device cpu"
            )));
        }
        compiler::version()?;
        let precision = Precision::from_environment()?;
        let step = |what: &'static str| move |error| failed(what, error);
        result::init().map_err(step("cuInit"))?;
        let count = result::device::get_count().map_err(step("cuDeviceGetCount"))?;
        if index >= count.max(0) as u32 {
            return Err(PluginError::device(format!(
                "cuda:{index} was asked for, and this machine has {count} cards; `longhaul devices` lists them"
            )));
        }
        let device = result::device::get(index as i32).map_err(step("cuDeviceGet"))?;
        // SAFETY: the device is the driver's own handle, and the context made of it stays retained until drop.
        let (context, major, minor) = unsafe {
            use sys::CUdevice_attribute::{
                CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR as MAJOR,
                CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR as MINOR,
            };
            let context =
                result::primary_ctx::retain(device).map_err(step("cuDevicePrimaryCtxRetain"))?;
            result::ctx::set_current(context).map_err(step("cuCtxSetCurrent"))?;
            let attribute = |which| {
                result::device::get_attribute(device, which).map_err(step("cuDeviceGetAttribute"))
            };
            (context, attribute(MAJOR)?, attribute(MINOR)?)
        };
        let architecture = (10 * major + minor) as u32;
        precision.check(architecture)?;
        let stream = result::stream::create(result::stream::StreamKind::NonBlocking)
            .map_err(step("cuStreamCreate"))?;
        Ok(Self {
            index,
            device,
            context,
            stream,
            architecture,
            precision,
            blas: Some(Blas::new(index, precision)?),
            rehearsing: AtomicBool::new(false),
            modules: Mutex::default(),
        })
    }

    /// Makes the context current on this thread.
    fn enter(&self) -> Result<()> {
        // SAFETY: the context is retained as long as this lives.
        unsafe { result::ctx::set_current(self.context) }
            .map_err(|error| self.failed("cuCtxSetCurrent", error))
    }

    fn failed(&self, what: &str, error: DriverError) -> PluginError {
        failed(&format!("cuda:{}, {what}", self.index), error)
    }

    fn module(&self, source: &'static KernelSource) -> Result<Module> {
        let code = compiler::cubin(source, self.architecture)?;
        // SAFETY: the bytes are a whole cubin, made for this architecture by NVRTC.
        let handle = unsafe { result::module::load_data(code.as_ptr().cast()) }
            .map_err(|error| self.failed(&format!("loading {}", source.file), error))?;
        Ok(Module {
            handle,
            functions: HashMap::new(),
        })
    }

    fn function(&self, kernel: Kernel, launch: Launch) -> Result<sys::CUfunction> {
        let mut modules = self
            .modules
            .lock()
            .map_err(|_| PluginError::internal("an earlier launch panicked"))?;
        let key = identity(kernel.source);
        let module = match modules.entry(key) {
            std::collections::hash_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::hash_map::Entry::Vacant(place) => {
                place.insert(self.module(kernel.source)?)
            }
        };
        if let Some((known, shared_bytes)) = module.functions.get(kernel.name)
            && launch.shared_bytes <= *shared_bytes
        {
            return Ok(*known);
        }
        let what = format!("{}, {}", kernel.source.file, kernel.name);
        let name = CString::new(kernel.name)
            .map_err(|_| PluginError::internal("a NUL in a kernel's name"))?;
        // SAFETY: the module is loaded, and is never unloaded while this lives.
        let function = unsafe { result::module::get_function(module.handle, name) }
            .map_err(|error| self.failed(&what, error))?;
        if launch.shared_bytes > PLAIN_SHARED_BYTES {
            let which =
                sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            // SAFETY: the function was just looked up.
            unsafe {
                result::function::set_function_attribute(
                    function,
                    which,
                    launch.shared_bytes as i32,
                )
            }
            .map_err(|error| {
                self.failed(
                    &format!("{what}, {} bytes of shared memory", launch.shared_bytes),
                    error,
                )
            })?;
        }
        let shared_bytes = launch.shared_bytes.max(PLAIN_SHARED_BYTES);
        module
            .functions
            .insert(kernel.name, (function, shared_bytes));
        Ok(function)
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
    context: sys::CUcontext,
}

// SAFETY: a graph's handle may be used from any thread.
unsafe impl Send for CudaGraph {}

impl Recording for CudaGraph {}

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
        self.enter()?;
        // SAFETY: the memory is only used through addresses that `allocate` gave, until `free`.
        let memory = unsafe { result::malloc_sync(bytes.max(1)) };
        memory
            .map(Ptr)
            .map_err(|error| self.failed(&format!("asking for {bytes} bytes"), error))
    }

    fn free(&self, memory: Ptr) {
        if self.enter().is_ok() {
            // SAFETY: given by `allocate`, freed once; the driver waits for work that uses it.
            let _ = unsafe { result::free_sync(memory.0) };
        }
    }

    fn upload(&self, to: Ptr, bytes: &[u8]) -> Result<()> {
        self.enter()?;
        // SAFETY: the engine's sizes; the driver has taken the bytes, which are not pinned, when the call
        // returns.
        unsafe { result::memcpy_htod_async(to.0, bytes, self.stream) }
            .map_err(|error| self.failed("an upload", error))
    }

    fn download(&self, from: Ptr, bytes: &mut [u8]) -> Result<()> {
        self.enter()?;
        // SAFETY: the engine's sizes; the stream is waited for before the borrow ends.
        unsafe { result::memcpy_dtoh_async(bytes, from.0, self.stream) }
            .map_err(|error| self.failed("a download", error))?;
        self.synchronize()
    }

    fn copy(&self, to: Ptr, from: Ptr, bytes: usize) -> Result<()> {
        if self.rehearsing.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.enter()?;
        // SAFETY: the engine's sizes.
        unsafe { result::memcpy_dtod_async(to.0, from.0, bytes, self.stream) }
            .map_err(|error| self.failed("a copy", error))
    }

    fn fill(&self, to: Ptr, word: u32, count: usize) -> Result<()> {
        if self.rehearsing.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.enter()?;
        // SAFETY: the engine's sizes.
        unsafe { sys::cuMemsetD32Async(to.0, word, count, self.stream) }
            .result()
            .map_err(|error| self.failed("a fill", error))
    }

    fn load(&self, sources: &[&'static KernelSource]) -> Result<()> {
        self.enter()?;
        let mut modules = self
            .modules
            .lock()
            .map_err(|_| PluginError::internal("an earlier launch panicked"))?;
        for source in sources {
            if let std::collections::hash_map::Entry::Vacant(place) =
                modules.entry(identity(source))
            {
                place.insert(self.module(source)?);
            }
        }
        Ok(())
    }

    fn launch(&self, kernel: Kernel, launch: Launch, params: &[u8]) -> Result<()> {
        self.enter()?;
        let function = self.function(kernel, launch)?;
        if self.rehearsing.load(Ordering::Relaxed) {
            return Ok(());
        }
        // The driver copies the parameter from here, aligned for its eight-byte fields.
        let mut words = [0u64; 64];
        if params.len() > size_of_val(&words) {
            return Err(PluginError::internal(format!(
                "{}: a parameter of {} bytes",
                kernel.name,
                params.len()
            )));
        }
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
                self.stream,
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
        self.enter()?;
        let rehearsing = self.rehearsing.load(Ordering::Relaxed);
        match &self.blas {
            Some(blas) if rehearsing => blas.choose(&product).map(|_| ()),
            Some(blas) => blas.product(&product, self.stream),
            None => Err(PluginError::internal("the driver is being closed")),
        }
    }

    fn record(&self, work: &mut dyn FnMut() -> Result<()>) -> Result<Box<dyn Recording>> {
        self.enter()?;
        // A rehearsal chooses how to multiply: the library may refuse to be asked while a stream captures.
        self.rehearsing.store(true, Ordering::Relaxed);
        let rehearsed = catch_unwind(AssertUnwindSafe(&mut *work));
        self.rehearsing.store(false, Ordering::Relaxed);
        rehearsed.unwrap_or_else(|panic| resume_unwind(panic))?;
        // Relaxed: first uses of kernels may load code, and nothing here depends on another stream.
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
        // SAFETY: the stream is ours.
        unsafe { result::stream::begin_capture(self.stream, mode) }
            .map_err(|error| self.failed("cuStreamBeginCapture", error))?;
        let worked = catch_unwind(AssertUnwindSafe(work));
        // SAFETY: a capture was begun above; it must end, whatever `work` did.
        let graph = unsafe { result::stream::end_capture(self.stream) };
        let graph = graph
            .map(Captured)
            .map_err(|error| self.failed("cuStreamEndCapture", error));
        worked.unwrap_or_else(|panic| resume_unwind(panic))?;
        let graph = graph?;
        // SAFETY: the graph was just captured.
        let ready =
            unsafe { result::graph::instantiate(graph.0, sys::CUgraphInstantiate_flags(0)) };
        Ok(Box::new(CudaGraph {
            graph: ready.map_err(|error| self.failed("cuGraphInstantiate", error))?,
            context: self.context,
        }))
    }

    fn replay(&self, recording: &dyn Recording) -> Result<()> {
        self.enter()?;
        let recording: &dyn std::any::Any = recording;
        let graph = recording
            .downcast_ref::<CudaGraph>()
            .ok_or_else(|| PluginError::internal("a recording of another device"))?;
        // SAFETY: instantiated by `record`; the memory it works on is alive, or it would have been dropped.
        unsafe { result::graph::launch(graph.graph, self.stream) }
            .map_err(|error| self.failed("cuGraphLaunch", error))
    }

    fn synchronize(&self) -> Result<()> {
        self.enter()?;
        // SAFETY: the stream is ours.
        unsafe { result::stream::synchronize(self.stream) }
            .map_err(|error| self.failed("work on the card", error))
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        if self.enter().is_err() {
            return;
        }
        self.blas = None;
        // SAFETY: everything was made by this and is given back once; errors of a lost card are ignored.
        unsafe {
            let _ = result::stream::synchronize(self.stream);
            if let Ok(modules) = self.modules.get_mut() {
                for module in modules.values() {
                    let _ = result::module::unload(module.handle);
                }
            }
            let _ = result::stream::destroy(self.stream);
            let _ = result::primary_ctx::release(self.device);
        }
    }
}
