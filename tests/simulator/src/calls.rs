//! The C functions of the driver that Longhaul calls.

use std::collections::BTreeMap;
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

use longhaul_emulator::native::{Library, NativeLaunch, Order};

use crate::code::{Code, Outcome, fail, refuse};
use crate::settings::SETTINGS;
use crate::stream::{Mode, Stream};
use crate::work::{Event, Function, Launch, Work};
use crate::world::{Module, World, broken_streams, current, current_handle, set_current, world};

/// Where an answer goes.
#[repr(transparent)]
pub struct Out<T>(*mut T);

impl<T> Out<T> {
    /// Writes it.
    pub fn put(self, value: T) -> Outcome {
        if self.0.is_null() {
            return fail(Code::InvalidValue, "the place for an answer is null");
        }
        // SAFETY: the contract of every call: the place is null or can be written.
        unsafe { self.0.write(value) };
        Ok(())
    }
}

/// Limits of the simulated card, a Hopper one.
const MOST_THREADS: u32 = 1024;
const MOST_BLOCK: [u32; 3] = [1024, 1024, 64];
const MOST_GRID: [u32; 3] = [i32::MAX as u32, 65535, 65535];
const PLAIN_SHARED: u32 = 48 << 10;
const MOST_SHARED: u32 = 227 << 10;
const MOST_PARAMS: usize = 32764;

fn require_init(world: &World) -> Outcome {
    if world.initialised {
        Ok(())
    } else {
        fail(Code::NotInitialized, "a call before cuInit")
    }
}

fn require_device(device: c_int) -> Outcome<usize> {
    require_init(&world())?;
    match usize::try_from(device) {
        Ok(device) if device < SETTINGS.cards.len() => Ok(device),
        _ => fail(
            Code::InvalidDevice,
            format!("card {device} of {}", SETTINGS.cards.len()),
        ),
    }
}

/// A stream of the current context, which must be in order.
pub fn stream(what: &str, handle: usize) -> Outcome<Arc<Stream>> {
    let context = current(what)?;
    world()
        .streams
        .get(context.handle, handle, "stream")
        .cloned()
}

/// Refuses a call that is unsafe during a capture of the current context's streams.
fn forbid_unsafe(what: &str) -> Outcome<usize> {
    let context = current(what)?;
    let streams = world().streams_of(&context);
    streams
        .iter()
        .try_for_each(|stream| stream.forbid_unsafe(what))?;
    Ok(context.handle)
}

/// Checks that device memory which a call names is there.
fn require_memory(what: &str, address: u64, bytes: usize) -> Outcome {
    let context = current(what)?;
    if bytes == 0 || world().memory.holds(context.handle, address, bytes) {
        return Ok(());
    }
    fail(
        Code::InvalidValue,
        format!("{what} of {bytes} bytes at {address:#x}: no allocation holds them"),
    )
}

fn event(what: &str, handle: usize) -> Outcome<Arc<Event>> {
    let context = current(what)?;
    world().events.get(context.handle, handle, "event").cloned()
}

fn host_memory(what: &str, place: Out<usize>, bytes: usize) -> Outcome {
    forbid_unsafe(what)?;
    if bytes == 0 {
        return fail(Code::InvalidValue, format!("{what} of 0 bytes"));
    }
    let address = world().pinned.allocate(bytes);
    place.put(address)
}

/// A module's bytes: an ELF file, whose header says how long it is.
fn image(pointer: *const u8) -> Outcome<Vec<u8>> {
    let refuse = || fail(Code::InvalidImage, "a module that is no ELF file");
    if pointer.is_null() {
        return refuse();
    }
    // SAFETY: the contract of the call: it points to a whole file, which has at least a header.
    let header = unsafe { std::slice::from_raw_parts(pointer, 4) };
    if header != b"\x7fELF" {
        return refuse();
    }
    // SAFETY: as above; an ELF header of 64 bits has 64 bytes.
    let header = unsafe { std::slice::from_raw_parts(pointer, 64) };
    let at = |place: usize, count: usize| {
        let bytes = header[place..place + count].iter().rev();
        bytes.fold(0usize, |value, byte| value << 8 | usize::from(*byte))
    };
    // The table of sections stands last: its place, the size of an entry and the number of them.
    let bytes = at(0x28, 8) + at(0x3a, 2) * at(0x3c, 2);
    // SAFETY: as above.
    Ok(unsafe { std::slice::from_raw_parts(pointer, bytes) }.to_vec())
}

/// Opens a module's bytes as a library. The same bytes are the same library: kernels keep nothing, and a
/// process has no room for the storage of hundreds of libraries.
fn open(bytes: Vec<u8>) -> Outcome<Arc<Library>> {
    static OPENED: Mutex<BTreeMap<Vec<u8>, Arc<Library>>> = Mutex::new(BTreeMap::new());
    let mut opened = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(library) = opened.get(&bytes) {
        return Ok(Arc::clone(library));
    }
    let system = |error: std::io::Error| refuse(Code::InvalidImage, format!("a module: {error}"));
    let mut file = tempfile::NamedTempFile::new().map_err(system)?;
    file.write_all(&bytes).map_err(system)?;
    let library = Library::open(file.path())
        .map_err(|error| refuse(Code::InvalidImage, format!("a module: {error}")))?;
    let library = Arc::new(library);
    opened.insert(bytes, Arc::clone(&library));
    Ok(library)
}

fn check_launch(function: &Function, launch: &NativeLaunch) -> Outcome {
    let name = &function.name;
    let within = |sizes: [u32; 3], most: [u32; 3]| {
        sizes
            .iter()
            .zip(most)
            .all(|(size, most)| *size >= 1 && *size <= most)
    };
    let threads: u64 = launch.block.iter().map(|size| u64::from(*size)).product();
    let allowed = *function
        .shared_bytes
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    if !within(launch.grid, MOST_GRID)
        || !within(launch.block, MOST_BLOCK)
        || threads > u64::from(MOST_THREADS)
    {
        return fail(
            Code::InvalidValue,
            format!("{name}: {launch:?} is more than a card takes"),
        );
    }
    if launch.shared_bytes > allowed {
        return fail(
            Code::InvalidValue,
            format!("{name}: {launch:?}, and {allowed} bytes of shared memory are allowed"),
        );
    }
    let bound = function.kernel.facts.threads;
    if threads > u64::from(bound) {
        return fail(
            Code::LaunchOutOfResources,
            format!("{name}: {threads} threads, and its bound is {bound}"),
        );
    }
    Ok(())
}

/// The number that a call answers with.
fn answer(call: impl FnOnce() -> Outcome) -> c_int {
    call().map_or_else(|code| code as c_int, |()| 0)
}

// The driver, its cards and their contexts.
c_functions! {
    answer;

    fn cuInit(flags: c_uint) {
        if flags != 0 {
            return fail(Code::InvalidValue, format!("cuInit({flags})"));
        }
        if SETTINGS.cards.is_empty() {
            return Err(Code::NoDevice);
        }
        world().initialised = true;
        Ok(())
    }

    fn cuDriverGetVersion(version: Out<c_int>) {
        version.put(13000)
    }

    fn cuGetErrorName(number: c_int, text: Out<*const c_char>) {
        if number == 0 {
            return text.put(c"CUDA_SUCCESS".as_ptr());
        }
        text.put(Code::of(number).ok_or(Code::InvalidValue)?.texts().0.as_ptr())
    }

    fn cuGetErrorString(number: c_int, text: Out<*const c_char>) {
        if number == 0 {
            return text.put(c"no error".as_ptr());
        }
        text.put(Code::of(number).ok_or(Code::InvalidValue)?.texts().1.as_ptr())
    }

    fn cuDeviceGetCount(count: Out<c_int>) {
        require_init(&world())?;
        count.put(SETTINGS.cards.len() as c_int)
    }

    fn cuDeviceGet(device: Out<c_int>, ordinal: c_int) {
        device.put(require_device(ordinal)? as c_int)
    }

    fn cuDeviceGetName(text: *mut u8, room: c_int, device: c_int) {
        let card = SETTINGS.cards[require_device(device)?];
        let name = format!("Simulated card {card}\0");
        if text.is_null() || room < 1 {
            return fail(Code::InvalidValue, "no room for a card's name");
        }
        let count = name.len().min(room as usize);
        // SAFETY: the contract of the call: there is room for as many bytes as it says.
        unsafe {
            text.copy_from_nonoverlapping(name.as_ptr(), count);
            text.add(count - 1).write(0);
        }
        Ok(())
    }

    fn cuDeviceTotalMem_v2(bytes: Out<usize>, device: c_int) {
        require_device(device)?;
        bytes.put(SETTINGS.memory as usize)
    }

    fn cuDeviceGetAttribute(value: Out<c_int>, which: c_int, device: c_int) {
        require_device(device)?;
        value.put(match which {
            1 => MOST_THREADS as c_int,
            2..=4 => MOST_BLOCK[which as usize - 2] as c_int,
            5..=7 => MOST_GRID[which as usize - 5] as c_int,
            // Of shared memory for each block: without being asked for more, and at most.
            8 => PLAIN_SHARED as c_int,
            97 => MOST_SHARED as c_int,
            // Threads of a warp; multiprocessors.
            10 => 32,
            16 => 2,
            // Shared memory of a multiprocessor.
            81 => 228 << 10,
            // Compute capability.
            75 => 9,
            76 => 0,
            other => return fail(Code::InvalidValue, format!("attribute {other} of a card is not simulated")),
        })
    }

    fn cuDevicePrimaryCtxRetain(context: Out<usize>, device: c_int) {
        let device = require_device(device)?;
        let handle = world().retain(device)?;
        context.put(handle)
    }

    fn cuDevicePrimaryCtxRelease_v2(device: c_int) {
        let device = require_device(device)?;
        world().release(device)
    }

    fn cuCtxSetCurrent(context: usize) {
        require_init(&world())?;
        set_current(context)
    }

    fn cuCtxGetCurrent(context: Out<usize>) {
        require_init(&world())?;
        context.put(current_handle())
    }
}

// Streams and events.
c_functions! {
    answer;

    fn cuStreamCreate(place: Out<usize>, flags: c_uint) {
        let context = current("cuStreamCreate")?;
        if flags > 1 {
            return fail(Code::InvalidValue, format!("a stream with flags {flags}"));
        }
        let stream = Stream::start(Arc::clone(&context));
        let handle = world().add(context.handle, |world| &mut world.streams, stream);
        place.put(handle)
    }

    fn cuStreamSynchronize(handle: usize) {
        let stream = stream("cuStreamSynchronize", handle)?;
        stream.forbid_while_capturing("cuStreamSynchronize")?;
        stream.wait();
        stream.context.error()
    }

    fn cuStreamDestroy_v2(handle: usize) {
        let context = current("cuStreamDestroy")?;
        let stream = world().streams.remove(context.handle, handle, "stream")?;
        stream.close();
        Ok(())
    }

    fn cuStreamBeginCapture_v2(handle: usize, mode: c_int) {
        stream("cuStreamBeginCapture", handle)?.begin_capture(Mode::of(mode)?)
    }

    fn cuStreamEndCapture(handle: usize, graph: Out<usize>) {
        let stream = stream("cuStreamEndCapture", handle)?;
        let work = Arc::new(stream.end_capture()?);
        let handle = world().add(stream.context.handle, |world| &mut world.graphs, work);
        graph.put(handle)
    }

    fn cuStreamIsCapturing(handle: usize, status: Out<c_int>) {
        status.put(stream("cuStreamIsCapturing", handle)?.is_capturing().into())
    }

    fn cuStreamQuery(handle: usize) {
        let stream = stream("cuStreamQuery", handle)?;
        stream.forbid_while_capturing("cuStreamQuery")?;
        if stream.is_done() { stream.context.error() } else { Err(Code::NotReady) }
    }

    fn cuStreamWaitEvent(handle: usize, event_handle: usize, _flags: c_uint) {
        let event = event("cuStreamWaitEvent", event_handle)?;
        let last = event.last()?;
        stream("cuStreamWaitEvent", handle)?.submit("a wait for an event", Work::Await(event, last))
    }

    fn cuEventCreate(place: Out<usize>, flags: c_uint) {
        let context = current("cuEventCreate")?;
        if flags > 3 {
            return fail(Code::InvalidValue, format!("an event with flags {flags}"));
        }
        let handle = world().add(context.handle, |world| &mut world.events, Arc::default());
        place.put(handle)
    }

    fn cuEventRecord(handle: usize, stream_handle: usize) {
        let event = event("cuEventRecord", handle)?;
        let stream = stream("cuEventRecord", stream_handle)?;
        if stream.is_capturing() {
            event.capture();
            return Ok(());
        }
        let nth = event.record();
        stream.submit("an event", Work::Reach(event, nth))
    }

    fn cuEventSynchronize(handle: usize) {
        let event = event("cuEventSynchronize", handle)?;
        forbid_unsafe("cuEventSynchronize")?;
        event.synchronize()?;
        current("cuEventSynchronize").map(|_| ())
    }

    fn cuEventQuery(handle: usize) {
        let event = event("cuEventQuery", handle)?;
        forbid_unsafe("cuEventQuery")?;
        event.query()
    }

    fn cuEventElapsedTime_v2(milliseconds: Out<f32>, from: usize, to: usize) {
        let from = event("cuEventElapsedTime", from)?.when()?;
        let to = event("cuEventElapsedTime", to)?.when()?;
        milliseconds.put(1000.0 * to.saturating_duration_since(from).as_secs_f32())
    }

    fn cuEventDestroy_v2(handle: usize) {
        let context = current("cuEventDestroy")?;
        world().events.remove(context.handle, handle, "event").map(|_| ())
    }
}

// Memory.
c_functions! {
    answer;

    fn cuMemAlloc_v2(place: Out<u64>, bytes: usize) {
        forbid_unsafe("cuMemAlloc")?;
        let context = current("cuMemAlloc")?;
        if bytes == 0 {
            return fail(Code::InvalidValue, "an allocation of 0 bytes");
        }
        let mut world = world();
        let used = world.used(&context);
        if used + bytes as u64 > SETTINGS.memory {
            let whole = SETTINGS.memory;
            return fail(Code::OutOfMemory, format!("{bytes} bytes, and {used} of {whole} are in use"));
        }
        place.put(world.memory.allocate(context.handle, bytes)?)
    }

    fn cuMemFree_v2(address: u64) {
        forbid_unsafe("cuMemFree")?;
        let context = current("cuMemFree")?;
        if address == 0 {
            return Ok(());
        }
        // As documented: it waits for everything that may still use the memory.
        let streams = world().streams_of(&context);
        streams.iter().for_each(|stream| stream.wait());
        world().memory.free(address)?;
        context.error()
    }

    fn cuMemGetInfo_v2(free: Out<usize>, total: Out<usize>) {
        let context = current("cuMemGetInfo")?;
        let used = world().used(&context);
        free.put((SETTINGS.memory - used) as usize)?;
        total.put(SETTINGS.memory as usize)
    }

    fn cuMemHostAlloc(place: Out<usize>, bytes: usize, flags: c_uint) {
        if flags > 7 {
            return fail(Code::InvalidValue, format!("pinned memory with flags {flags}"));
        }
        host_memory("cuMemHostAlloc", place, bytes)
    }

    fn cuMemAllocHost_v2(place: Out<usize>, bytes: usize) {
        host_memory("cuMemAllocHost", place, bytes)
    }

    fn cuMemFreeHost(address: usize) {
        // Also in a context in which something went wrong: the memory is the host's, and the copies that waited
        // are dropped soon, if they are not yet.
        for stream in broken_streams() {
            stream.wait();
        }
        world().pinned.free(address)?;
        current("cuMemFreeHost").map(|_| ())
    }

    fn cuMemcpyHtoDAsync_v2(to: u64, from: usize, count: usize, stream_handle: usize) {
        let stream = stream("cuMemcpyHtoDAsync", stream_handle)?;
        require_memory("an upload", to, count)?;
        if count == 0 {
            return Ok(());
        }
        let held = world().pinned.claim(from, count);
        // SAFETY: the contract of the call: the bytes can be read.
        let bytes = unsafe { std::slice::from_raw_parts(from as *const u8, count) }.to_vec();
        stream.submit("an upload", match held {
            Some(_held) => Work::PinnedUpload { to, from, count, expected: Some(bytes), _held },
            None => Work::Upload { to, bytes },
        })
    }

    fn cuMemcpyDtoHAsync_v2(to: usize, from: u64, count: usize, stream_handle: usize) {
        let stream = stream("cuMemcpyDtoHAsync", stream_handle)?;
        require_memory("a download", from, count)?;
        let held = world().pinned.claim(to, count);
        let pageable = held.is_none();
        stream.submit("a download", Work::Download { to, from, count, _held: held })?;
        // As documented: to pageable memory the copy is complete when the call returns.
        if pageable {
            stream.wait();
        }
        stream.context.error()
    }

    fn cuMemcpyDtoDAsync_v2(to: u64, from: u64, count: usize, stream_handle: usize) {
        let stream = stream("cuMemcpyDtoDAsync", stream_handle)?;
        require_memory("a copy's source", from, count)?;
        require_memory("a copy's end", to, count)?;
        stream.submit("a copy", Work::Copy { to, from, count })
    }

    fn cuMemsetD32Async(to: u64, word: c_uint, count: usize, stream_handle: usize) {
        let stream = stream("cuMemsetD32Async", stream_handle)?;
        if !to.is_multiple_of(4) {
            return fail(Code::InvalidValue, format!("a fill of words at {to:#x}"));
        }
        require_memory("a fill", to, 4 * count)?;
        stream.submit("a fill", Work::Fill { to, word, rows: 1, cols: count, pitch: 4 * count })
    }

    fn cuMemsetD2D32Async(to: u64, pitch: usize, word: c_uint, cols: usize, rows: usize, stream_handle: usize) {
        let stream = stream("cuMemsetD2D32Async", stream_handle)?;
        if !to.is_multiple_of(4) || !pitch.is_multiple_of(4) {
            return fail(Code::InvalidValue, format!("a fill of words at {to:#x}, {pitch} bytes a row"));
        }
        if rows > 1 && pitch < 4 * cols {
            return fail(Code::InvalidValue, format!("a fill of {cols} words in rows of {pitch} bytes"));
        }
        if rows > 0 {
            require_memory("a fill", to, (rows - 1) * pitch + 4 * cols)?;
        }
        stream.submit("a fill", Work::Fill { to, word, rows, cols, pitch })
    }
}

// Modules, kernels and graphs.
c_functions! {
    answer;

    fn cuModuleLoadData(place: Out<usize>, bytes: *const u8) {
        let context = forbid_unsafe("cuModuleLoadData")?;
        let library = open(image(bytes)?)?;
        let module = Module { library, functions: Vec::new() };
        let handle = world().add(context, |world| &mut world.modules, module);
        place.put(handle)
    }

    fn cuModuleGetFunction(place: Out<usize>, module: usize, name: *const c_char) {
        let context = current("cuModuleGetFunction")?.handle;
        // SAFETY: the contract of the call: the name ends with a NUL.
        let name = unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned();
        let mut world = world();
        let library = Arc::clone(&world.modules.get(context, module, "module")?.library);
        let Some(kernel) = library.kernel(&name) else {
            return fail(Code::NotFound, format!("the module has no kernel `{name}`"));
        };
        let shared_bytes = Mutex::new(PLAIN_SHARED);
        let function = Function { name, kernel, _library: library, shared_bytes };
        let handle = world.add(context, |world| &mut world.functions, Arc::new(function));
        world.modules.get_mut(context, module, "module")?.functions.push(handle);
        place.put(handle)
    }

    fn cuModuleUnload(handle: usize) {
        let context = current("cuModuleUnload")?.handle;
        let mut world = world();
        let module = world.modules.remove(context, handle, "module")?;
        for function in module.functions {
            world.functions.remove(context, function, "kernel")?;
        }
        Ok(())
    }

    fn cuFuncGetAttribute(value: Out<c_int>, which: c_int, function: usize) {
        let context = current("cuFuncGetAttribute")?.handle;
        let function = Arc::clone(world().functions.get(context, function, "kernel")?);
        let allowed = *function.shared_bytes.lock().unwrap_or_else(PoisonError::into_inner);
        value.put(match which {
            0 => function.kernel.facts.threads.min(MOST_THREADS) as c_int,
            // Shared memory that is not dynamic: kernels have none.
            1 => 0,
            8 => allowed as c_int,
            other => return fail(Code::InvalidValue, format!("attribute {other} of a kernel is not simulated")),
        })
    }

    fn cuFuncSetAttribute(function: usize, which: c_int, value: c_int) {
        let context = current("cuFuncSetAttribute")?.handle;
        let function = Arc::clone(world().functions.get(context, function, "kernel")?);
        let wanted = u32::try_from(value).ok().filter(|bytes| *bytes <= MOST_SHARED);
        match (which, wanted) {
            (8, Some(bytes)) => {
                *function.shared_bytes.lock().unwrap_or_else(PoisonError::into_inner) = bytes;
                Ok(())
            }
            _ => fail(Code::InvalidValue, format!("{}: attribute {which} is set to {value}", function.name)),
        }
    }

    fn cuLaunchKernel(
        function: usize, grid_x: c_uint, grid_y: c_uint, grid_z: c_uint, block_x: c_uint, block_y: c_uint,
        block_z: c_uint, shared_bytes: c_uint, stream_handle: usize, params: *const *const u8, extra: *const c_void,
    ) {
        let stream = stream("cuLaunchKernel", stream_handle)?;
        let function = Arc::clone(world().functions.get(stream.context.handle, function, "kernel")?);
        let launch = NativeLaunch {
            grid: [grid_x, grid_y, grid_z],
            block: [block_x, block_y, block_z],
            shared_bytes,
            order: Order::Forwards,
        };
        check_launch(&function, &launch)?;
        let bytes = function.kernel.facts.params_bytes;
        if params.is_null() || !extra.is_null() || bytes > MOST_PARAMS {
            return fail(Code::InvalidValue, format!("{}: its parameter of {bytes} bytes", function.name));
        }
        // SAFETY: the contract of the call: the first entry points to the kernel's one parameter.
        let params = unsafe { std::slice::from_raw_parts(*params, bytes) }.to_vec();
        stream.submit("a launch", Work::Launch(Launch { function, launch, params }))
    }

    fn cuGraphInstantiateWithFlags(place: Out<usize>, graph: usize, _flags: u64) {
        let context = current("cuGraphInstantiate")?.handle;
        let mut world = world();
        let work = Arc::clone(world.graphs.get(context, graph, "graph")?);
        place.put(world.add(context, |world| &mut world.executables, work))
    }

    fn cuGraphGetNodes(graph: usize, nodes: usize, count: Out<usize>) {
        if nodes != 0 {
            return fail(Code::InvalidValue, "handles of a graph's nodes, which this simulation does not have");
        }
        let context = current("cuGraphGetNodes")?.handle;
        let nodes = world().graphs.get(context, graph, "graph")?.len();
        count.put(nodes)
    }

    fn cuGraphDestroy(graph: usize) {
        let context = current("cuGraphDestroy")?.handle;
        world().graphs.remove(context, graph, "graph").map(|_| ())
    }

    fn cuGraphLaunch(executable: usize, stream_handle: usize) {
        let stream = stream("cuGraphLaunch", stream_handle)?;
        let work = world().executables.get(stream.context.handle, executable, "executable graph").cloned()?;
        stream.submit("a graph", Work::Graph(work))
    }

    fn cuGraphExecDestroy(executable: usize) {
        let context = current("cuGraphExecDestroy")?.handle;
        world().executables.remove(context, executable, "executable graph").map(|_| ())
    }
}
