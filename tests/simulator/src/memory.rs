//! Memory: device memory as pages of one reserved range, whose addresses are never given twice, and pinned
//! host memory.

use std::collections::BTreeMap;
use std::ptr;
use std::sync::Arc;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::code::{Code, Outcome, abort, fail};

/// Addresses for device memory, none of which is anything else in this process.
const RANGE: usize = 1 << 38;
const PAGE: usize = 4096;
/// Every allocation begins at a multiple of this, as on a card.
const ALIGNMENT: usize = 256;

static START: LazyLock<usize> = LazyLock::new(|| {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a fresh mapping that nothing may read or write yet.
    let start = unsafe { libc::mmap(ptr::null_mut(), RANGE, libc::PROT_NONE, flags, -1, 0) };
    if start == libc::MAP_FAILED {
        abort("the system gives no addresses for device memory");
    }
    start as usize
});

/// Whether a number can only be an address of device memory.
pub fn is_device_address(word: u64) -> bool {
    (*START as u64..(*START + RANGE) as u64).contains(&word)
}

/// One allocation.
struct Allocation {
    bytes: usize,
    context: usize,
    /// Its pages.
    pages: (usize, usize),
}

/// The device memory of all cards, each allocation with its context.
#[derive(Default)]
pub struct DeviceMemory {
    allocations: BTreeMap<u64, Allocation>,
    /// Bytes of the range that were given out.
    given: usize,
}

impl DeviceMemory {
    /// Memory full of NaN, its end as near to an unreadable page as the alignment lets it.
    pub fn allocate(&mut self, context: usize, bytes: usize) -> Outcome<u64> {
        let whole = bytes.next_multiple_of(ALIGNMENT);
        let length = whole.next_multiple_of(PAGE);
        if self.given + length + PAGE > RANGE {
            return fail(
                Code::OutOfMemory,
                "this process has used up the simulated addresses",
            );
        }
        let start = *START + self.given;
        // SAFETY: pages of the range that nothing has been given yet.
        let open =
            unsafe { libc::mprotect(start as *mut _, length, libc::PROT_READ | libc::PROT_WRITE) };
        if open != 0 {
            return fail(
                Code::OutOfMemory,
                format!("the system has no {bytes} bytes"),
            );
        }
        // The page after it stays closed.
        self.given += length + PAGE;
        // SAFETY: just opened, and nobody else knows of it.
        unsafe { ptr::write_bytes(start as *mut u8, 0xff, length) };
        let address = (start + length - whole) as u64;
        let pages = (start, length);
        self.allocations.insert(
            address,
            Allocation {
                bytes,
                context,
                pages,
            },
        );
        Ok(address)
    }

    /// Gives an allocation back: its pages are closed for ever.
    pub fn free(&mut self, address: u64) -> Outcome {
        let Some(Allocation {
            pages: (start, length),
            ..
        }) = self.allocations.remove(&address)
        else {
            return fail(
                Code::InvalidValue,
                format!("{address:#x} is freed and is no allocation"),
            );
        };
        // SAFETY: the allocation's own pages, which it has no more; nothing uses the addresses again.
        unsafe {
            libc::madvise(start as *mut _, length, libc::MADV_DONTNEED);
            libc::mprotect(start as *mut _, length, libc::PROT_NONE);
        }
        Ok(())
    }

    /// Frees what a context still has; how many allocations that were.
    pub fn free_all(&mut self, context: usize) -> usize {
        let mine =
            |(address, one): (&u64, &Allocation)| (one.context == context).then_some(*address);
        let left: Vec<u64> = self.allocations.iter().filter_map(mine).collect();
        for address in &left {
            let _ = self.free(*address);
        }
        left.len()
    }

    /// Bytes that a context has.
    pub fn used(&self, context: usize) -> u64 {
        let mine = self
            .allocations
            .values()
            .filter(|one| one.context == context);
        mine.map(|one| one.bytes.next_multiple_of(ALIGNMENT) as u64)
            .sum()
    }

    /// Whether bytes lie in one allocation of a context.
    pub fn holds(&self, context: usize, address: u64, bytes: usize) -> bool {
        let before = self.allocations.range(..=address).next_back();
        before.is_some_and(|(start, one)| {
            one.context == context && address + bytes as u64 <= start + one.bytes as u64
        })
    }

    /// Whether an address, taken from a kernel's parameter, points into an allocation or just behind one.
    pub fn points_into(&self, context: usize, address: u64) -> bool {
        let before = self.allocations.range(..=address).next_back();
        before.is_some_and(|(start, one)| {
            one.context == context && address <= start + one.bytes as u64
        })
    }
}

/// Pinned host memory, and the copies that still need it.
#[derive(Default)]
pub struct PinnedMemory {
    blocks: BTreeMap<usize, Pinned>,
}

struct Pinned {
    /// Eight-byte words that were leaked at its address.
    words: usize,
    bytes: usize,
    uses: Arc<AtomicUsize>,
}

/// A copy that needs a block of pinned memory, until this is dropped.
pub struct PinnedUse(Arc<AtomicUsize>);

impl Drop for PinnedUse {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl PinnedMemory {
    /// A block full of NaN.
    pub fn allocate(&mut self, bytes: usize) -> usize {
        // Never empty, so that every block has an address of its own.
        let words = bytes.div_ceil(8).max(1);
        let memory = Box::leak(vec![u64::MAX; words].into_boxed_slice());
        let address = memory.as_mut_ptr() as usize;
        let uses = Arc::default();
        self.blocks.insert(address, Pinned { words, bytes, uses });
        address
    }

    /// Gives a block back.
    pub fn free(&mut self, address: usize) -> Outcome {
        let Some(block) = self.blocks.remove(&address) else {
            return fail(
                Code::InvalidValue,
                format!("{address:#x} is freed and is no pinned memory"),
            );
        };
        let uses = block.uses.load(Ordering::Acquire);
        if uses > 0 {
            abort(format!(
                "pinned memory of {} bytes is freed, and {uses} copies that use it have not run",
                block.bytes
            ));
        }
        let memory = ptr::slice_from_raw_parts_mut(address as *mut u64, block.words);
        // SAFETY: leaked by `allocate` and freed once, for it was just taken out of the list.
        drop(unsafe { Box::from_raw(memory) });
        Ok(())
    }

    /// Blocks that were not given back.
    pub fn count(&self) -> usize {
        self.blocks.len()
    }

    /// The block that bytes lie in, for a copy of them; none for pageable memory.
    pub fn claim(&self, address: usize, bytes: usize) -> Option<PinnedUse> {
        let (start, block) = self.blocks.range(..=address).next_back()?;
        if address + bytes > start + block.bytes {
            return None;
        }
        block.uses.fetch_add(1, Ordering::AcqRel);
        Some(PinnedUse(Arc::clone(&block.uses)))
    }
}
