//! Launches of a card that stores activations as bfloat16, under an engine that lays all buffers out in float32: the kernel
//! finds the buffers that its parameters declare as [`Stored`](longhaul_plugin_kit::cuda::device::Stored) rounded, and what
//! it leaves there comes back. The same kernel compiled for float32 runs beside it on copies of the rounded values: both
//! compute in float32, so what they leave is the same, once rounded where it is stored; or nearly, where a kernel reads again
//! what it stored. What is not is an error, and so is a buffer that one kernel takes for stored and another for float32.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use longhaul_plugin_kit::cuda::device::{Kernel, Struct};
use longhaul_plugin_kit::cuda::guards::GUARD;
use longhaul_plugin_kit::cuda::storage::Storage;

use super::Emulator;
use super::native::{NativeKernel, NativeLaunch};

/// What an address in a kernel's parameters is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Stored,
    Float32,
    Other,
}

/// An address in a kernel's parameters that leads into an allocation.
struct Address {
    /// Its place in the parameters.
    offset: usize,
    kind: Kind,
    at: u64,
    /// The allocation's.
    base: u64,
}

impl Emulator {
    /// Runs a kernel that was compiled for float32 and for bfloat16.
    pub(super) fn run_stored(
        &self,
        kernel: Kernel,
        launch: &NativeLaunch,
        params: &[u8],
        [float32, bf16]: [NativeKernel; 2],
    ) -> Result<(), String> {
        let (mut for_float32, mut for_bf16) = (params.to_vec(), params.to_vec());
        let mut copies = BTreeMap::new();
        for address in self.addresses(kernel, params, bf16.params)? {
            self.check_kind(&address)?;
            let copies = copies
                .entry(address.base)
                .or_insert_with(|| Copies::of(self.values(address.base)));
            let place = address.offset..address.offset + 8;
            let inside = (address.at - address.base) as usize;
            copies.begins.insert(inside / 4);
            let beside = if address.kind == Kind::Stored {
                let half = copies.halves.as_mut_ptr() as usize + inside / 2;
                for_bf16[place.clone()].copy_from_slice(&half.to_ne_bytes());
                copies.rounded.as_mut_ptr()
            } else {
                copies.exact.as_mut_ptr()
            };
            for_float32[place].copy_from_slice(&(beside as usize + inside).to_ne_bytes());
        }
        // SAFETY: the libraries are held open; the addresses are the engine's, or those of as many values.
        unsafe {
            float32.run(launch, &for_float32)?;
            bf16.run(launch, &for_bf16)?;
        }
        copies
            .iter()
            .try_for_each(|(base, copies)| copies.finish(self.values(*base)))
    }

    /// The addresses in a kernel's parameters, a struct of this name.
    fn addresses(&self, kernel: Kernel, params: &[u8], name: &str) -> Result<Vec<Address>, String> {
        let structs = kernel.source.params;
        let declared = structs.iter().find(|declared| declared.name == name);
        let declared = declared.ok_or("its parameters are not declared")?;
        let memory = self.memory.lock().expect("no panic holds it");
        let address = |(offset, kind): (usize, Kind)| {
            let bytes = params[offset..offset + 8].try_into().ok()?;
            let at = u64::from_ne_bytes(bytes);
            let (&base, (size, _)) = memory.range(..=at).next_back()?;
            (at < base + *size as u64).then_some(Address {
                offset,
                kind,
                at,
                base,
            })
        };
        let pointers = pointers(structs, declared, 0).0;
        Ok(pointers.into_iter().filter_map(address).collect())
    }

    /// Refuses an address that a kernel before took for one of another kind.
    fn check_kind(&self, address: &Address) -> Result<(), String> {
        if address.kind == Kind::Other {
            return Ok(());
        }
        let mut kinds = self.kinds.lock().expect("no panic holds it");
        let before = *kinds.entry(address.at).or_insert(address.kind);
        if before == address.kind {
            return Ok(());
        }
        Err(format!(
            "the buffer at byte {} of its parameters is declared as {:?} here and as {before:?} by a kernel before",
            address.offset, address.kind
        ))
    }

    /// Forgets of which kind the buffers of an allocation were, as they are laid out anew.
    pub(super) fn forget_kinds(&self, base: u64, size: usize) {
        let mut kinds = self.kinds.lock().expect("no panic holds it");
        kinds.retain(|address, _| !(base..base + size as u64).contains(address));
    }

    /// The values of an allocation.
    fn values<'a>(&self, base: u64) -> &'a mut [f32] {
        let size = self.memory.lock().expect("no panic holds it")[&base].0;
        // SAFETY: the engine frees nothing while a kernel runs, and the slices that are made of an allocation are used one
        // after the other.
        unsafe { std::slice::from_raw_parts_mut(base as *mut f32, size / 4) }
    }
}

/// The pointers in a struct of parameters that begins at `offset`, and where it ends.
fn pointers(all: &[Struct], declared: &Struct, offset: usize) -> (Vec<(usize, Kind)>, usize) {
    let by_name = |name: &str| all.iter().find(|one| one.name == name);
    let (mut found, mut at) = match declared.base.and_then(by_name) {
        Some(base) => pointers(all, base, offset),
        None => (Vec::new(), offset),
    };
    let fields = declared.fields.split_terminator(',');
    for (field, &count) in fields.zip(declared.counts) {
        let (kind, _) = field.rsplit_once(' ').expect("a type and a name");
        let kind = match kind.strip_prefix('[') {
            Some(array) => array.rsplit_once(';').expect("an array's length").0,
            None => kind,
        };
        for _ in 0..count {
            match kind {
                "*const Stored" | "*mut Stored" => found.push((at, Kind::Stored)),
                "*const f32" | "*mut f32" => found.push((at, Kind::Float32)),
                _ if kind.starts_with('*') => found.push((at, Kind::Other)),
                _ => (),
            }
            at = match kind {
                "u32" | "i32" | "f32" => at + 4,
                "u16" => at + 2,
                "u64" | "f64" => at + 8,
                _ if kind.starts_with('*') => at + 8,
                _ => {
                    let inner = by_name(kind).expect("a struct that the source lists");
                    let (inner, end) = pointers(all, inner, at);
                    found.extend(inner);
                    end
                }
            };
        }
    }
    (found, at)
}

/// What the two forms of a kernel work on in the place of an allocation. The one for bfloat16 works on float32 buffers
/// themselves.
struct Copies {
    /// As it was.
    before: Vec<f32>,
    /// As it was, for the float32 buffers of the form for float32.
    exact: Vec<f32>,
    /// Every value rounded, for the stored ones.
    rounded: Vec<f32>,
    /// Every value as bfloat16.
    halves: Vec<Eight>,
    /// Where the kernel's parameters begin in it.
    begins: BTreeSet<usize>,
}

/// Eight values as bfloat16; memory of them begins at a multiple of 16 bytes.
#[derive(Clone, Copy)]
#[repr(align(16))]
struct Eight([u16; 8]);

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

impl Copies {
    fn of(values: &[f32]) -> Self {
        let eight = |values: &[f32]| {
            let mut eight = [0; 8];
            eight
                .iter_mut()
                .zip(values)
                .for_each(|(half, &value)| *half = to_half(value));
            Eight(eight)
        };
        let rounded = values.iter().map(|&value| from_half(to_half(value)));
        Self {
            before: values.to_vec(),
            exact: values.to_vec(),
            rounded: rounded.collect(),
            halves: values.chunks(8).map(eight).collect(),
            begins: BTreeSet::new(),
        }
    }

    /// Holds what the form for bfloat16 left, here and in `values`, against what the one for float32 did, and puts stored
    /// values that changed where the engine looks for them.
    fn finish(&self, values: &mut [f32]) -> Result<(), String> {
        let buffers = buffers(&self.before, &self.begins);
        agree("float32", &buffers, values, &self.exact, &self.before)?;
        let halves = self.halves.iter().flat_map(|eight| eight.0);
        let stored: Vec<f32> = halves.map(from_half).take(values.len()).collect();
        let round = |values: &[f32]| -> Vec<f32> {
            values
                .iter()
                .map(|&value| from_half(to_half(value)))
                .collect()
        };
        let before = round(&self.before);
        let rounded = round(&self.rounded);
        agree("stored", &buffers, &stored, &rounded, &before)?;
        for ((value, stored), before) in values.iter_mut().zip(stored).zip(before) {
            if !same(stored, before) {
                *value = stored;
            }
        }
        Ok(())
    }
}

fn same(a: f32, b: f32) -> bool {
    a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan()
}

/// How far what a kernel leaves that reads again what it stored, as where it adds twice to a gradient, may be from the same
/// in float32, relative to the largest value that it leaves in that buffer: what is read was rounded, by up to 1/256 of it,
/// and so is what is left, for which the next value may be nearer then. Other kernels leave the same.
const TWO_ROUNDINGS: f32 = 1.0 / 128.0;

/// The buffers of an allocation: what lies between bands that nobody writes, and between the places that a kernel is given.
fn buffers(before: &[f32], begins: &BTreeSet<usize>) -> Vec<Range<usize>> {
    let mut all = Vec::new();
    let mut from = 0;
    for part in before.chunk_by(|one, next| is_band(*one) == is_band(*next)) {
        let to = from + part.len();
        for &begin in begins.range(from + 1..to) {
            all.push(from..begin);
            from = begin;
        }
        all.push(from..to);
        from = to;
    }
    all
}

fn is_band(word: f32) -> bool {
    word.to_bits() == GUARD
}

/// Whether what two forms of a kernel left in each buffer is the same, or differs by roundings on the way.
fn agree(
    kind: &str,
    buffers: &[Range<usize>],
    bf16: &[f32],
    float32: &[f32],
    before: &[f32],
) -> Result<(), String> {
    for buffer in buffers {
        let [bf16, float32, before] = [bf16, float32, before].map(|all| &all[buffer.clone()]);
        let written = float32
            .iter()
            .zip(before)
            .filter(|(now, before)| !same(**now, **before));
        let written = written.filter(|(now, _)| now.is_finite());
        let largest = written.map(|(now, _)| now.abs()).fold(0.0, f32::max);
        for (at, (&bf16, &float32)) in bf16.iter().zip(float32).enumerate() {
            let near = (bf16 - float32).abs() <= TWO_ROUNDINGS * largest;
            if !near && !same(bf16, float32) {
                let at = buffer.start + at;
                return Err(format!(
                    "{kind} value {at} of the memory is {bf16} with activations in bfloat16, and {float32} with the same in \
                     float32, the largest {largest}"
                ));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_buffer_is_not_held_against_the_largest_value_of_another() {
        let band = f32::from_bits(GUARD);
        let before = [0.0, 0.0, band, band, 0.0, 0.0];
        let float32 = [1.0, 0.5, band, band, 1e-3, 5e-4];
        let all = buffers(&before, &BTreeSet::from([0, 5]));
        assert_eq!(all, [0..2, 2..4, 4..5, 5..6]);
        let agrees = |bf16: [f32; 6]| agree("stored", &all, &bf16, &float32, &before);
        assert_eq!(agrees(float32), Ok(()));
        assert_eq!(agrees([1.0, 0.503, band, band, 1e-3, 5.03e-4]), Ok(()));
        assert!(agrees([1.0, 0.503, band, 0.0, 1e-3, 5e-4]).is_err());
        let lost = agrees([1.0, 0.5, band, band, 1e-3, 0.0]).expect_err("a lost gradient");
        assert!(lost.contains("value 5 "), "{lost}");
    }
}
