//! Uploads through page-locked memory. A copy out of ordinary memory makes the driver copy it aside first, and
//! may wait for the stream; out of page-locked memory it is left to the card, and the host goes on. Two buffers
//! take turns, so that one upload is put together while the one before it is still under way.

use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys;

/// Largest upload that goes through the buffers, in bytes. What is larger (parameters, once) goes directly.
const MOST_BYTES: usize = 8 << 20;

/// What the driver was asked for, and what it said.
pub(super) type Refused = (&'static str, DriverError);

/// Page-locked memory, and when its last copy is over.
struct Buffer {
    data: *mut u8,
    bytes: usize,
    copied: sys::CUevent,
}

impl Buffer {
    fn new(bytes: usize) -> Result<Self, Refused> {
        let flags = sys::CUevent_flags::CU_EVENT_DISABLE_TIMING;
        let copied = result::event::create(flags).map_err(|error| ("cuEventCreate", error))?;
        // SAFETY: the memory is only used by the buffer, and given back once, when that is dropped.
        match unsafe { result::malloc_host(bytes, 0) } {
            Ok(data) => Ok(Self {
                data: data.cast(),
                bytes,
                copied,
            }),
            Err(error) => {
                // SAFETY: created above, and used by nothing yet.
                let _ = unsafe { result::event::destroy(copied) };
                Err(("asking for page-locked memory", error))
            }
        }
    }

    /// Waits for its last copy, if that is still under way.
    fn wait(&self) -> Result<(), Refused> {
        // SAFETY: the event lives as long as this; one that was never recorded is over.
        unsafe { result::event::synchronize(self.copied) }
            .map_err(|error| ("waiting for an upload", error))
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let _ = self.wait();
        // SAFETY: both were made by `new`; no copy is under way, and nobody else has them.
        unsafe {
            let _ = result::free_host(self.data.cast());
            let _ = result::event::destroy(self.copied);
        }
    }
}

/// Two buffers in turns, made when they are first needed. They go, as they came, with the context current.
#[derive(Default)]
pub(super) struct Uploads {
    buffers: [Option<Buffer>; 2],
    next: usize,
}

// SAFETY: page-locked memory and events may be used from any thread in whose context they were made, which the
// driver makes current before each call.
unsafe impl Send for Uploads {}

impl Uploads {
    /// Copies bytes to the card in the stream's order. The bytes may be used again when it returns. The stream
    /// is not being captured.
    pub fn upload(
        &mut self,
        to: sys::CUdeviceptr,
        bytes: &[u8],
        stream: sys::CUstream,
    ) -> Result<(), Refused> {
        let failed = |error| ("an upload", error);
        if bytes.is_empty() {
            return Ok(());
        }
        if bytes.len() > MOST_BYTES {
            // SAFETY: the engine's sizes; the stream is waited for before the borrow ends, as the driver need not
            // have taken bytes that are not page-locked when the call returns.
            return unsafe {
                result::memcpy_htod_async(to, bytes, stream).map_err(failed)?;
                result::stream::synchronize(stream).map_err(failed)
            };
        }
        let buffer = self.turn(bytes.len())?;
        buffer.wait()?;
        // SAFETY: the buffer has at least this many bytes, and its last copy is over, so nothing reads it.
        let staged = unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), buffer.data, bytes.len());
            std::slice::from_raw_parts(buffer.data, bytes.len())
        };
        // SAFETY: the engine's sizes; the buffer stays as it is until the event says that the copy is over.
        unsafe {
            result::memcpy_htod_async(to, staged, stream).map_err(failed)?;
            result::event::record(buffer.copied, stream)
        }
        .map_err(|error| ("cuEventRecord", error))
    }

    /// The buffer whose turn it is, with room for so many bytes.
    fn turn(&mut self, bytes: usize) -> Result<&Buffer, Refused> {
        let place = &mut self.buffers[self.next];
        self.next = (self.next + 1) % 2;
        place.take_if(|buffer| buffer.bytes < bytes);
        match place {
            Some(buffer) => Ok(buffer),
            None => Ok(place.insert(Buffer::new(bytes.next_power_of_two())?)),
        }
    }
}
