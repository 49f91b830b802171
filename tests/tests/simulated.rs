//! The simulated CUDA driver, called as a C library is: misuse is refused with the code that a real driver
//! gives, or ends the process where a real one corrupts memory.

use std::ffi::{CStr, c_char, c_void};
use std::ptr;

use libloading::Library;
use longhaul_plugin_kit::cuda::compiler;
use longhaul_plugin_kit::cuda::device::KernelSource;
use longhaul_plugin_kit::cuda::storage::Storage;
use longhaul_tests::card;

const INVALID_VALUE: i32 = 1;
const OUT_OF_MEMORY: i32 = 2;
const NOT_INITIALIZED: i32 = 3;
const INVALID_CONTEXT: i32 = 201;
const INVALID_HANDLE: i32 = 400;
const NOT_READY: i32 = 600;
const ILLEGAL_ADDRESS: i32 = 700;
const LAUNCH_OUT_OF_RESOURCES: i32 = 701;
const LAUNCH_FAILED: i32 = 719;
const CAPTURE_UNSUPPORTED: i32 = 900;
const CAPTURE_INVALIDATED: i32 = 901;

const GLOBAL: i32 = 0;
const RELAXED: i32 = 2;

/// Calls a function of the driver by name; its code.
macro_rules! call {
    ($cuda:expr, $name:literal $(, $value:expr => $kind:ty)*) => {{
        // SAFETY: the types are those of the CUDA driver API, and every pointer is to something alive that
        // is large enough, or is what the call must refuse.
        unsafe {
            let function = $cuda.0.get::<unsafe extern "C" fn($($kind),*) -> i32>($name).unwrap();
            function($($value),*)
        }
    }};
}

/// The driver's library.
struct Cuda(Library);

impl Cuda {
    fn open() -> Self {
        // SAFETY: our own library, which has no initialisers with effects.
        Self(unsafe { Library::new("libcuda.so.1") }.unwrap())
    }

    /// The driver with card 0's context current on this thread, and a stream.
    fn ready() -> (Self, usize) {
        let cuda = Self::open();
        assert_eq!(call!(cuda, "cuInit", 0 => u32), 0);
        cuda.enter();
        let mut stream = 0;
        assert_eq!(
            call!(cuda, "cuStreamCreate", &mut stream => &mut usize, 1 => u32),
            0
        );
        (cuda, stream)
    }

    fn enter(&self) {
        let mut context = 0;
        assert_eq!(
            call!(self, "cuDevicePrimaryCtxRetain", &mut context => &mut usize, 0 => i32),
            0
        );
        assert_eq!(call!(self, "cuCtxSetCurrent", context => usize), 0);
    }

    fn allocate(&self, bytes: usize) -> u64 {
        let mut place = 0;
        assert_eq!(
            call!(self, "cuMemAlloc_v2", &mut place => &mut u64, bytes => usize),
            0
        );
        place
    }

    fn pinned(&self, bytes: usize) -> *mut u8 {
        let mut place = ptr::null_mut();
        assert_eq!(
            call!(self, "cuMemHostAlloc", &mut place => &mut *mut u8, bytes => usize, 0 => u32),
            0
        );
        place
    }

    fn upload(&self, to: u64, from: *const u8, bytes: usize, stream: usize) -> i32 {
        call!(self, "cuMemcpyHtoDAsync_v2", to => u64, from => *const u8, bytes => usize, stream => usize)
    }

    fn download(&self, from: u64, bytes: usize, stream: usize) -> Vec<u8> {
        let mut to = vec![0u8; bytes];
        let code = call!(
            self, "cuMemcpyDtoHAsync_v2",
            to.as_mut_ptr() => *mut u8, from => u64, bytes => usize, stream => usize
        );
        assert_eq!(code, 0);
        to
    }

    fn fill(&self, to: u64, word: u32, count: usize, stream: usize) -> i32 {
        call!(self, "cuMemsetD32Async", to => u64, word => u32, count => usize, stream => usize)
    }

    fn wait(&self, stream: usize) -> i32 {
        call!(self, "cuStreamSynchronize", stream => usize)
    }

    fn begin(&self, stream: usize, mode: i32) {
        assert_eq!(
            call!(self, "cuStreamBeginCapture_v2", stream => usize, mode => i32),
            0
        );
    }

    /// Ends a capture; the code and the graph.
    fn end(&self, stream: usize) -> (i32, usize) {
        let mut graph = 0;
        let code = call!(self, "cuStreamEndCapture", stream => usize, &mut graph => &mut usize);
        (code, graph)
    }

    /// Makes what was captured ready.
    fn instantiate(&self, stream: usize) -> usize {
        let (code, graph) = self.end(stream);
        assert_eq!(code, 0);
        let mut ready = 0;
        let flags = 0;
        assert_eq!(
            call!(self, "cuGraphInstantiateWithFlags", &mut ready => &mut usize, graph => usize, flags => u64),
            0
        );
        assert_eq!(call!(self, "cuGraphDestroy", graph => usize), 0);
        ready
    }

    fn replay(&self, ready: usize, stream: usize) -> i32 {
        call!(self, "cuGraphLaunch", ready => usize, stream => usize)
    }
}

#[test]
fn a_call_needs_the_driver_and_a_context_on_its_thread() {
    if !card::is_here("a_call_needs_the_driver_and_a_context_on_its_thread", &[]) {
        return;
    }
    let cuda = Cuda::open();
    let mut count = 0;
    let ask = |count: &mut i32| call!(cuda, "cuDeviceGetCount", count => &mut i32);
    assert_eq!(ask(&mut count), NOT_INITIALIZED);
    assert_eq!(call!(cuda, "cuInit", 0 => u32), 0);
    assert_eq!((ask(&mut count), count), (0, 1));
    let allocate = || {
        let mut place = 0u64;
        call!(cuda, "cuMemAlloc_v2", &mut place => &mut u64, 64 => usize)
    };
    assert_eq!(allocate(), INVALID_CONTEXT);
    cuda.enter();
    assert_eq!(allocate(), 0);
    std::thread::scope(|scope| {
        let elsewhere = scope.spawn(allocate).join().unwrap();
        assert_eq!(elsewhere, INVALID_CONTEXT);
    });
    // Retained once, released once: then it is gone.
    assert_eq!(call!(cuda, "cuDevicePrimaryCtxRelease_v2", 0 => i32), 0);
    assert_eq!(allocate(), INVALID_CONTEXT);
}

#[test]
fn memory_has_limits_and_copies_stay_inside() {
    let small = [("SIMULATED_CUDA_MEMORY", "1M")];
    if !card::is_here("memory_has_limits_and_copies_stay_inside", &small) {
        return;
    }
    let (cuda, stream) = Cuda::ready();
    let place = cuda.allocate(1000);
    let nan = [0xff; 1000];
    assert_eq!(
        cuda.download(place, 1000, stream),
        nan,
        "fresh memory is NaN"
    );
    assert_eq!(
        cuda.upload(place, nan.as_ptr(), 1001, stream),
        INVALID_VALUE
    );
    assert_eq!(
        cuda.upload(place + 1, nan.as_ptr(), 1000, stream),
        INVALID_VALUE
    );
    assert_eq!(cuda.upload(place + 1, nan.as_ptr(), 999, stream), 0);
    assert_eq!(cuda.fill(place, 0, 251, stream), INVALID_VALUE);
    assert_eq!(cuda.fill(place + 2, 0, 1, stream), INVALID_VALUE);
    let (mut free, mut total) = (0, 0);
    let ask = |free: &mut usize, total: &mut usize| call!(cuda, "cuMemGetInfo_v2", free => &mut usize, total => &mut usize);
    assert_eq!(ask(&mut free, &mut total), 0);
    assert_eq!((free, total), ((1 << 20) - 1024, 1 << 20));
    let mut other = 0u64;
    let code = call!(cuda, "cuMemAlloc_v2", &mut other => &mut u64, 1 << 20 => usize);
    assert_eq!(code, OUT_OF_MEMORY);
    let mut name: *const c_char = ptr::null();
    assert_eq!(
        call!(cuda, "cuGetErrorName", code => i32, &mut name => &mut *const c_char),
        0
    );
    // SAFETY: the driver's own text.
    assert_eq!(unsafe { CStr::from_ptr(name) }, c"CUDA_ERROR_OUT_OF_MEMORY");
    assert_eq!(call!(cuda, "cuMemFree_v2", place => u64), 0);
    assert_eq!(call!(cuda, "cuMemFree_v2", place => u64), INVALID_VALUE);
    assert_eq!(cuda.fill(place, 0, 1, stream), INVALID_VALUE);
    // An address is never given twice.
    assert_ne!(cuda.allocate(1000), place);
}

#[test]
fn a_capture_is_spoilt_by_what_it_cannot_hold() {
    if !card::is_here("a_capture_is_spoilt_by_what_it_cannot_hold", &[]) {
        return;
    }
    let (cuda, stream) = Cuda::ready();
    let place = cuda.allocate(64);
    let pageable = [1u8; 64];
    let spoils: [&dyn Fn() -> i32; 3] = [
        &|| cuda.wait(stream),
        &|| call!(cuda, "cuStreamQuery", stream => usize),
        &|| cuda.upload(place, pageable.as_ptr(), 64, stream),
    ];
    for spoil in spoils {
        cuda.begin(stream, RELAXED);
        assert_eq!(spoil(), CAPTURE_UNSUPPORTED);
        assert_eq!(cuda.fill(place, 0, 4, stream), CAPTURE_INVALIDATED);
        assert_eq!(cuda.end(stream), (CAPTURE_INVALIDATED, 0));
    }
    // Asking for memory is refused in the strict mode only.
    for (mode, code, end) in [
        (RELAXED, 0, 0),
        (GLOBAL, CAPTURE_UNSUPPORTED, CAPTURE_INVALIDATED),
    ] {
        cuda.begin(stream, mode);
        let mut other = 0u64;
        assert_eq!(
            call!(cuda, "cuMemAlloc_v2", &mut other => &mut u64, 64 => usize),
            code
        );
        assert_eq!(cuda.end(stream).0, end);
    }
    assert_eq!(cuda.wait(stream), 0, "the stream goes on");
}

#[test]
fn a_graph_runs_until_it_is_destroyed_and_not_on_freed_memory() {
    if !card::is_here(
        "a_graph_runs_until_it_is_destroyed_and_not_on_freed_memory",
        &[],
    ) {
        return;
    }
    let (cuda, stream) = Cuda::ready();
    let (first, second) = (cuda.allocate(64), cuda.allocate(64));
    let record = |place| {
        cuda.begin(stream, RELAXED);
        assert_eq!(cuda.fill(place, 7, 16, stream), 0);
        cuda.instantiate(stream)
    };
    let (short, long) = (record(first), record(second));
    assert_eq!(cuda.download(first, 4, stream), [0xff; 4]);
    assert_eq!(cuda.replay(short, stream), 0);
    assert_eq!(cuda.download(first, 4, stream), [7, 0, 0, 0]);
    assert_eq!(call!(cuda, "cuGraphExecDestroy", short => usize), 0);
    assert_eq!(cuda.replay(short, stream), INVALID_HANDLE);
    assert_eq!(call!(cuda, "cuMemFree_v2", second => u64), 0);
    assert_eq!(cuda.replay(long, stream), 0);
    assert_eq!(cuda.wait(stream), ILLEGAL_ADDRESS);
    assert_eq!(
        cuda.fill(first, 0, 1, stream),
        ILLEGAL_ADDRESS,
        "the context is lost"
    );
}

#[test]
fn pinned_memory_is_read_when_the_copy_runs() {
    let slow = [("SIMULATED_CUDA_DELAY", "20000")];
    if !card::is_here("pinned_memory_is_read_when_the_copy_runs", &slow) {
        return;
    }
    let (cuda, stream) = Cuda::ready();
    let place = cuda.allocate(64);
    let buffer = cuda.pinned(64);
    let mut event = 0;
    assert_eq!(
        call!(cuda, "cuEventCreate", &mut event => &mut usize, 2 => u32),
        0
    );
    let query = || call!(cuda, "cuEventQuery", event => usize);
    assert_eq!(query(), 0, "an event that was never recorded");
    for value in [1u8, 2] {
        // SAFETY: the buffer has 64 bytes, and the event below was waited for.
        unsafe { buffer.write_bytes(value, 64) };
        assert_eq!(cuda.upload(place, buffer, 64, stream), 0);
        assert_eq!(
            call!(cuda, "cuEventRecord", event => usize, stream => usize),
            0
        );
        assert_eq!(query(), NOT_READY);
        assert_eq!(call!(cuda, "cuEventSynchronize", event => usize), 0);
        assert_eq!(query(), 0);
        assert_eq!(cuda.download(place, 64, stream), [value; 64]);
    }
    // In a graph the bytes are those that stand there at each launch.
    cuda.begin(stream, RELAXED);
    assert_eq!(cuda.upload(place, buffer, 64, stream), 0);
    let ready = cuda.instantiate(stream);
    // SAFETY: as above.
    unsafe { buffer.write_bytes(9, 64) };
    assert_eq!(cuda.replay(ready, stream), 0);
    assert_eq!(cuda.download(place, 64, stream), [9; 64]);
    assert_eq!(call!(cuda, "cuGraphExecDestroy", ready => usize), 0);
    assert_eq!(call!(cuda, "cuMemFreeHost", buffer => *mut u8), 0);
}

/// Ends the process by what is done to a pinned buffer while a copy from it has not run.
#[track_caller]
fn aborts(test: &str, words: &str, misuse: impl FnOnce(&Cuda, *mut u8)) {
    let slow = [("SIMULATED_CUDA_DELAY", "50000")];
    if let Some(ran) = card::again(test, &slow) {
        assert_eq!(ran.code, None, "a signal ends it: {}", ran.stderr);
        ran.complains(&[words]);
        return;
    }
    let (cuda, stream) = Cuda::ready();
    let place = cuda.allocate(64);
    let buffer = cuda.pinned(64);
    assert_eq!(cuda.upload(place, buffer, 64, stream), 0);
    misuse(&cuda, buffer);
    cuda.wait(stream);
}

#[test]
fn pinned_memory_that_changes_too_early_is_noticed() {
    aborts(
        "pinned_memory_that_changes_too_early_is_noticed",
        "pinned memory changed before the copy of 64 bytes",
        // SAFETY: the buffer has 64 bytes.
        |_, buffer| unsafe { buffer.write_bytes(1, 64) },
    );
}

#[test]
fn pinned_memory_that_is_freed_too_early_is_noticed() {
    aborts(
        "pinned_memory_that_is_freed_too_early_is_noticed",
        "pinned memory of 64 bytes is freed, and 1 copies",
        |cuda, buffer| {
            call!(cuda, "cuMemFreeHost", buffer => *mut u8);
        },
    );
}

static SOURCE: KernelSource = KernelSource {
    file: "simulated.cu",
    text: "struct Place { float* x; u64 unused; };
KERNEL(256, one, Place) { p.x[0] = 1.0f; }
KERNEL(256, torn, Place) { if (p.x && threadIdx.x < 16) __syncthreads(); else __syncwarp(); }
",
    params: &[],
};

#[test]
fn launches_have_a_cards_limits() {
    if !card::is_here("launches_have_a_cards_limits", &[]) {
        return;
    }
    let (cuda, stream) = Cuda::ready();
    let code = compiler::cubin(&SOURCE, Storage::Float32, 90).unwrap();
    let mut module = 0;
    let text = "no library".as_ptr();
    assert_eq!(
        call!(cuda, "cuModuleLoadData", &mut module => &mut usize, text => *const u8),
        200
    );
    let load = |module: &mut usize| call!(cuda, "cuModuleLoadData", module => &mut usize, code.as_ptr() => *const u8);
    assert_eq!(load(&mut module), 0);
    let function = |name: &CStr| {
        let mut function = 0;
        let code = call!(
            cuda, "cuModuleGetFunction",
            &mut function => &mut usize, module => usize, name.as_ptr() => *const c_char
        );
        assert_eq!(code, 0);
        function
    };
    let (one, torn) = (function(c"one"), function(c"torn"));
    let place = cuda.allocate(4);
    let launch = |function: usize, place: u64, grid: [u32; 3], block: [u32; 3], shared: u32| {
        let params = [place, 0];
        let list = [params.as_ptr()];
        call!(
            cuda, "cuLaunchKernel",
            function => usize, grid[0] => u32, grid[1] => u32, grid[2] => u32, block[0] => u32, block[1] => u32,
            block[2] => u32, shared => u32, stream => usize, list.as_ptr() => *const *const u64,
            ptr::null() => *const c_void
        )
    };
    let (unit, warp) = ([1, 1, 1], [32, 1, 1]);
    assert_eq!(launch(one, place, [1, 65_536, 1], warp, 0), INVALID_VALUE);
    assert_eq!(launch(one, place, [0, 1, 1], warp, 0), INVALID_VALUE);
    assert_eq!(launch(one, place, unit, [2048, 1, 1], 0), INVALID_VALUE);
    assert_eq!(launch(one, place, unit, [1, 1, 128], 0), INVALID_VALUE);
    assert_eq!(
        launch(one, place, unit, [512, 1, 1], 0),
        LAUNCH_OUT_OF_RESOURCES
    );
    assert_eq!(launch(one, place, unit, warp, 60_000), INVALID_VALUE);
    let allow =
        |bytes: i32| call!(cuda, "cuFuncSetAttribute", one => usize, 8 => i32, bytes => i32);
    assert_eq!(allow(228 << 10), INVALID_VALUE);
    assert_eq!(allow(60_000), 0);
    assert_eq!(launch(one, place, unit, warp, 60_000), 0);
    assert_eq!(cuda.download(place, 4, stream), 1f32.to_le_bytes());
    assert_eq!(launch(torn, place, unit, warp, 0), 0);
    assert_eq!(cuda.wait(stream), LAUNCH_FAILED);
}

#[test]
fn a_kernel_is_not_given_freed_memory() {
    if !card::is_here("a_kernel_is_not_given_freed_memory", &[]) {
        return;
    }
    let (cuda, stream) = Cuda::ready();
    let code = compiler::cubin(&SOURCE, Storage::Float32, 90).unwrap();
    let (mut module, mut function) = (0usize, 0usize);
    assert_eq!(
        call!(cuda, "cuModuleLoadData", &mut module => &mut usize, code.as_ptr() => *const u8),
        0
    );
    assert_eq!(
        call!(
            cuda, "cuModuleGetFunction",
            &mut function => &mut usize, module => usize, c"one".as_ptr() => *const c_char
        ),
        0
    );
    let place = cuda.allocate(4);
    assert_eq!(call!(cuda, "cuMemFree_v2", place => u64), 0);
    let params = [place, 0];
    let list = [params.as_ptr()];
    let launched = call!(
        cuda, "cuLaunchKernel",
        function => usize, 1 => u32, 1 => u32, 1 => u32, 32 => u32, 1 => u32, 1 => u32, 0 => u32, stream => usize,
        list.as_ptr() => *const *const u64, ptr::null() => *const c_void
    );
    assert_eq!(launched, 0);
    assert_eq!(cuda.wait(stream), ILLEGAL_ADDRESS);
}

#[test]
fn what_a_program_leaves_behind_is_written_down() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let log = folder.path().join("log");
    let variables = [("SIMULATED_CUDA_LOG", &*log.to_string_lossy())];
    if !card::is_here("what_a_program_leaves_behind_is_written_down", &variables) {
        let log = std::fs::read_to_string(&log).expect("a context was opened");
        let left = "card 0 closed with 1 streams, 2 allocations, 3 pinned blocks left";
        assert!(log.contains(left), "{log}");
        return;
    }
    let (cuda, _) = Cuda::ready();
    for _ in 0..3 {
        cuda.pinned(8);
    }
    let (first, second) = (cuda.pinned(8), cuda.allocate(8));
    cuda.allocate(8);
    cuda.allocate(8);
    assert_eq!(call!(cuda, "cuMemFree_v2", second => u64), 0);
    assert_eq!(call!(cuda, "cuMemFreeHost", first => *mut u8), 0);
    assert_eq!(call!(cuda, "cuDevicePrimaryCtxRelease_v2", 0 => i32), 0);
}
