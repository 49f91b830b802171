//! A card that stores activations as bfloat16, under an engine that lays all buffers out in float32: a launch finds the
//! buffers that its parameters declare as [`Stored`](longhaul_plugin_kit::cuda::device::Stored) rounded, and what it leaves
//! there comes back. The same kernel compiled for float32 runs beside it on the rounded values: both compute in float32, so
//! what they leave is the same, once rounded where it is stored; or nearly, where a kernel reads again what it stored.
//!
//! A buffer that is declared as stored by one kernel and as float32 by another is an error.

use std::collections::HashMap;
use std::sync::Mutex;

use longhaul_plugin_kit::cuda::device::{
    Device, Kernel, KernelSource, Launch, Product, Ptr, Recording, Struct,
};
use longhaul_plugin_kit::cuda::precision::Precision;
use longhaul_plugin_kit::cuda::storage::Storage;
use longhaul_plugin_kit::{PluginError, Result};

use super::{Emulator, Recorded, Work, identity};

/// What an address in a kernel's parameters is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Of {
    Stored,
    Float32,
    Other,
}

/// The device: everything but launches is as on an [`Emulator`].
pub struct StoredBf16 {
    float32: Emulator,
    bf16: Emulator,
    /// Values of each allocation, by address.
    allocations: Mutex<HashMap<u64, usize>>,
    /// What the addresses that launches were given so far are of.
    types: Mutex<HashMap<u64, Of>>,
    recording: Mutex<Option<Vec<Work>>>,
}

impl StoredBf16 {
    /// A device that keeps compiled kernels beside this test's other build products.
    pub fn beside_target(precision: Precision) -> Self {
        let plain = || Emulator::beside_target(false).with_precision(precision);
        let storage = Storage::Bf16;
        Self {
            float32: plain(),
            bf16: Emulator { storage, ..plain() },
            allocations: Mutex::default(),
            types: Mutex::default(),
            recording: Mutex::default(),
        }
    }

    fn perform(&self, work: &Work) -> Result<()> {
        if let Some(list) = self.recording.lock().expect("no panic holds it").as_mut() {
            list.push(work.clone());
            return Ok(());
        }
        match work {
            Work::Fill(to, word, count) => {
                let allocations = self.allocations.lock().expect("no panic holds it");
                if allocations.get(&to.0) == Some(count) {
                    // Where a whole allocation is filled, buffers are laid out anew.
                    self.forget(to.0, *count);
                }
                self.float32.fill(*to, *word, *count)
            }
            Work::Launch(kernel, launch, params) => self.run_kernel(*kernel, *launch, params),
            other => self.float32.perform(other),
        }
    }

    fn forget(&self, base: u64, count: usize) {
        let own = base..base + 4 * count as u64;
        let mut types = self.types.lock().expect("no panic holds it");
        types.retain(|address, _| !own.contains(address));
    }

    /// The addresses in a kernel's parameters.
    fn addresses(&self, kernel: Kernel, params: &[u8]) -> Result<Vec<Address>> {
        let libraries = self.bf16.libraries.lock().expect("no panic holds it");
        let library = libraries.get(&identity(kernel.source));
        let native = library.and_then(|library| library.kernel(kernel.name));
        let name = native.map(|native| native.params);
        let structs = kernel.source.params;
        let declared = structs.iter().find(|declared| Some(declared.name) == name);
        let declared = declared.ok_or_else(|| PluginError::device("it is not declared"))?;
        let allocations = self.allocations.lock().expect("no panic holds it");
        let fields = fields(structs, declared, 0).0.into_iter();
        let address = |(offset, of)| Address::new(offset, of, params, &allocations);
        Ok(fields.filter_map(address).collect())
    }

    fn run_kernel(&self, kernel: Kernel, launch: Launch, params: &[u8]) -> Result<()> {
        let fail = |what: String| {
            PluginError::device(format!("{}, {}: {what}", kernel.source.file, kernel.name))
        };
        let addresses = self.addresses(kernel, params)?;
        for address in addresses.iter().filter(|address| address.of != Of::Other) {
            let mut types = self.types.lock().expect("no panic holds it");
            let before = *types.entry(address.at).or_insert(address.of);
            if before != address.of {
                return Err(fail(format!(
                    "the buffer at byte {} of its parameters is declared as {:?} here and as {before:?} by a kernel before",
                    address.offset, address.of
                )));
            }
        }
        let mut copies = HashMap::new();
        for address in &addresses {
            let copy = || {
                let before = values(address.base, address.count);
                (Copies::new(before), before.to_vec())
            };
            copies.entry(address.base).or_insert_with(copy);
        }
        // Where each address leads in the one form and in the other.
        let (mut beside, mut own) = (params.to_vec(), params.to_vec());
        for address in &addresses {
            let (there, copies) = ((address.at - address.base) as usize, &mut copies);
            let (copies, _) = copies.get_mut(&address.base).expect("made above");
            let place = address.offset..address.offset + 8;
            let stored = address.of == Of::Stored;
            let from = if stored {
                &mut copies.rounded
            } else {
                &mut copies.exact
            };
            let moved = from.as_mut_ptr() as usize + there;
            beside[place.clone()].copy_from_slice(&moved.to_ne_bytes());
            if stored {
                let moved = copies.halves.as_mut_ptr() as usize + there / 2;
                own[place].copy_from_slice(&moved.to_ne_bytes());
            }
        }
        self.float32.launch(kernel, launch, &beside)?;
        self.bf16.launch(kernel, launch, &own)?;
        for (&base, (copies, before)) in &copies {
            let values = values(base, before.len());
            copies.compare(values, before).map_err(fail)?;
            copies.bring_back(values);
        }
        Ok(())
    }
}

/// The values of an allocation.
fn values<'a>(base: u64, count: usize) -> &'a mut [f32] {
    // SAFETY: an address that `allocate` gave and not taken back since; launches, copies and fills are one after the other,
    // and none runs while a slice of it is used.
    unsafe { std::slice::from_raw_parts_mut(base as *mut f32, count) }
}

/// An address in a kernel's parameters that leads into an allocation.
struct Address {
    /// Its place in the parameters.
    offset: usize,
    of: Of,
    at: u64,
    /// The allocation's.
    base: u64,
    count: usize,
}

impl Address {
    fn new(
        offset: usize,
        of: Of,
        params: &[u8],
        allocations: &HashMap<u64, usize>,
    ) -> Option<Self> {
        let bytes = params[offset..offset + 8].try_into().ok()?;
        let at = u64::from_ne_bytes(bytes);
        let holds = |base: u64, count: usize| (base..base + 4 * count as u64).contains(&at);
        let mut allocations = allocations.iter();
        let (&base, &count) = allocations.find(|(base, count)| holds(**base, **count))?;
        Some(Self {
            offset,
            of,
            at,
            base,
            count,
        })
    }
}

/// The addresses in a struct of parameters that begins at `offset`, and where it ends.
fn fields(all: &[Struct], declared: &Struct, offset: usize) -> (Vec<(usize, Of)>, usize) {
    let by_name = |name: &str| all.iter().find(|one| one.name == name);
    let (mut found, mut at) = match declared.base.and_then(by_name) {
        Some(base) => fields(all, base, offset),
        None => (Vec::new(), offset),
    };
    let texts = declared.fields.split_terminator(',');
    for (field, &count) in texts.zip(declared.counts) {
        let (kind, _) = field.rsplit_once(' ').expect("a type and a name");
        let kind = match kind.strip_prefix('[') {
            Some(array) => array.rsplit_once(';').expect("an array's length").0,
            None => kind,
        };
        let pointee = kind
            .strip_prefix("*const ")
            .or_else(|| kind.strip_prefix("*mut "));
        for _ in 0..count {
            at += match (pointee, kind) {
                (Some(pointee), _) => {
                    let of = match pointee {
                        "Stored" => Of::Stored,
                        "f32" => Of::Float32,
                        _ => Of::Other,
                    };
                    found.push((at, of));
                    8
                }
                (None, "u64" | "f64") => 8,
                (None, "u32" | "i32" | "f32") => 4,
                (None, "u16") => 2,
                (None, name) => {
                    let own = by_name(name).expect("a struct that the source lists");
                    let (inner, end) = fields(all, own, at);
                    found.extend(inner);
                    end - at
                }
            };
        }
    }
    (found, at)
}

/// What the two forms work on in the place of an allocation.
struct Copies {
    /// As it was, for float32 buffers beside rounded ones.
    exact: Vec<f32>,
    /// Every value rounded, in float32.
    rounded: Vec<f32>,
    /// Every value as bfloat16, and a few more, so that it begins at a multiple of 16 bytes.
    halves: Vec<Half>,
    /// As they were.
    before: Vec<Half>,
}

/// Eight values.
#[derive(Clone, Copy)]
#[repr(align(16))]
struct Half([u16; 8]);

/// A value as bfloat16; every NaN is one.
fn to_half(value: f32) -> u16 {
    match value.is_nan() {
        true => 0x7fff,
        false => (Storage::Bf16.round(value).to_bits() >> 16) as u16,
    }
}

fn from_half(half: u16) -> f32 {
    f32::from_bits(u32::from(half) << 16)
}

fn same(a: f32, b: f32) -> bool {
    a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan()
}

/// Of what a kernel leaves that reads again what it stored: a rounding of the largest of these values. Other kernels leave
/// the same.
const ROUNDING: f32 = 1.0 / 256.0;

/// Whether what two forms of a kernel left is the same, or differs by roundings on the way.
fn agree(
    kind: &str,
    own: impl Iterator<Item = f32>,
    beside: impl Iterator<Item = f32>,
    before: impl Iterator<Item = f32>,
) -> std::result::Result<(), String> {
    let mut largest = 0.0f32;
    let mut worst = (0.0f32, String::new());
    for (at, ((own, beside), before)) in own.zip(beside).zip(before).enumerate() {
        if !same(beside, before) && beside.is_finite() {
            largest = largest.max(beside.abs());
        }
        let difference = match same(own, beside) {
            true => 0.0,
            false if own.is_finite() && beside.is_finite() => (own - beside).abs(),
            false => f32::INFINITY,
        };
        if difference > worst.0 {
            let what = format!(
                "{kind} value {at} of the memory is {own} with activations in bfloat16, and {beside} with the same in float32"
            );
            worst = (difference, what);
        }
    }
    match worst.0 <= ROUNDING * largest {
        true => Ok(()),
        false => Err(worst.1),
    }
}

impl Copies {
    fn new(values: &[f32]) -> Self {
        let eight = |values: &[f32]| {
            let mut halves = [0; 8];
            let places = halves.iter_mut().zip(values);
            places.for_each(|(half, &value)| *half = to_half(value));
            Half(halves)
        };
        let halves: Vec<Half> = values.chunks(8).map(eight).collect();
        Self {
            exact: values.to_vec(),
            rounded: values
                .iter()
                .map(|&value| from_half(to_half(value)))
                .collect(),
            before: halves.clone(),
            halves,
        }
    }

    /// What the form for float32 left against what the one for bfloat16 did, in `values` and in `halves`.
    fn compare(&self, values: &[f32], before: &[f32]) -> std::result::Result<(), String> {
        let exact = self.exact.iter().copied();
        agree(
            "float32",
            values.iter().copied(),
            exact,
            before.iter().copied(),
        )?;
        let flat = |halves: &'_ [Half]| {
            halves
                .iter()
                .flat_map(|eight| eight.0)
                .map(from_half)
                .collect::<Vec<_>>()
        };
        let rounded = self.rounded.iter().map(|&value| from_half(to_half(value)));
        agree(
            "stored",
            flat(&self.halves).into_iter(),
            rounded,
            flat(&self.before).into_iter(),
        )
    }

    /// Puts the stored values that changed where the engine looks for them.
    fn bring_back(&self, values: &mut [f32]) {
        let flat = |halves: &'_ [Half]| halves.iter().flat_map(|eight| eight.0).collect::<Vec<_>>();
        let changed = flat(&self.halves).into_iter().zip(flat(&self.before));
        for ((half, before), value) in changed.zip(values) {
            if half != before {
                *value = from_half(half);
            }
        }
    }
}

impl Device for StoredBf16 {
    fn precision(&self) -> Precision {
        self.float32.precision()
    }

    fn storage(&self) -> Storage {
        Storage::Bf16
    }

    fn allocate(&self, bytes: usize) -> Result<Ptr> {
        let memory = self.float32.allocate(bytes)?;
        let mut allocations = self.allocations.lock().expect("no panic holds it");
        allocations.insert(memory.0, bytes / 4);
        Ok(memory)
    }

    fn free(&self, memory: Ptr) {
        let mut allocations = self.allocations.lock().expect("no panic holds it");
        if let Some(count) = allocations.remove(&memory.0) {
            self.forget(memory.0, count);
        }
        self.float32.free(memory);
    }

    fn upload(&self, to: Ptr, bytes: &[u8]) -> Result<()> {
        self.float32.upload(to, bytes)
    }

    fn download(&self, from: Ptr, bytes: &mut [u8]) -> Result<()> {
        self.float32.download(from, bytes)
    }

    fn copy(&self, to: Ptr, from: Ptr, bytes: usize) -> Result<()> {
        self.perform(&Work::Copy(to, from, bytes))
    }

    fn fill(&self, to: Ptr, word: u32, count: usize) -> Result<()> {
        self.perform(&Work::Fill(to, word, count))
    }

    fn load(&self, sources: &[&'static KernelSource]) -> Result<()> {
        self.float32.load(sources)?;
        self.bf16.load(sources)
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
