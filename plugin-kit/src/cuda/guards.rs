//! Bands of a known word between the buffers of one allocation. A kernel that writes past its buffer writes into the next
//! one, where no checker of memory sees it; with bands it is found by what is left of them, and with the operations run
//! one by one it is found which of them it was. There are bands where [`Device::guarded`] says so; else nothing here
//! costs anything.

use std::ops::Range;

use longhaul_plugin_api::author::Result;

use super::device::{Device, Ptr};
use super::memory::download;

/// A NaN that no computation makes.
pub const GUARD: u32 = 0x7fd5_a5c3;

/// The bands of an allocation.
#[derive(Debug, Clone, Default)]
pub(crate) struct Guards {
    base: Ptr,
    word: u32,
    /// In values: one before each buffer, and one behind the last; empty between buffers that belong side by side.
    bands: Vec<Range<usize>>,
    /// The buffers in the order of their places.
    order: Vec<usize>,
}

/// Where a band was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Breach {
    /// The buffer that is nearer to it, by its number.
    pub buffer: usize,
    /// From its end on, or its beginning back, 1 is the value next to it.
    pub distance: usize,
    /// Whether it is behind the buffer.
    pub behind: bool,
}

impl Guards {
    /// Bands around the buffers that begin at `starts`, of so many values, up to `total`.
    pub fn new(base: Ptr, word: u32, starts: &[usize], lengths: &[usize], total: usize) -> Self {
        let mut order: Vec<usize> = (0..starts.len()).collect();
        order.sort_by_key(|&buffer| starts[buffer]);
        let ends = order.iter().map(|&buffer| starts[buffer] + lengths[buffer]);
        let begins = std::iter::once(0).chain(ends);
        let starts = order.iter().map(|&buffer| starts[buffer]);
        let starts = starts.chain(std::iter::once(total));
        Self {
            base,
            word,
            bands: begins.zip(starts).map(|(begin, end)| begin..end).collect(),
            order,
        }
    }

    /// Writes them.
    ///
    /// # Errors
    /// The device's.
    pub fn fill(&self, device: &dyn Device) -> Result<()> {
        self.bands
            .iter()
            .filter(|band| !band.is_empty())
            .try_for_each(|band| device.fill(self.base.value(band.start), self.word, band.len()))
    }

    /// The first place where one was written over, after all work.
    ///
    /// # Errors
    /// The device's.
    pub fn breach(&self, device: &dyn Device) -> Result<Option<Breach>> {
        for (index, band) in self.bands.iter().enumerate() {
            if band.is_empty() {
                continue;
            }
            let values = download(device, self.base.value(band.start), band.len())?;
            let is_other = |value: &f32| value.to_bits() != self.word;
            let Some(first) = values.iter().position(is_other) else {
                continue;
            };
            let last = values.iter().rposition(is_other).unwrap_or(first);
            let from_next = values.len() - last;
            let behind = index > 0 && (first < from_next || index + 1 == self.bands.len());
            return Ok(Some(Breach {
                buffer: self.order[if behind { index - 1 } else { index }],
                distance: if behind { first + 1 } else { from_next },
                behind,
            }));
        }
        Ok(None)
    }
}

impl std::fmt::Display for Breach {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (many, side) = match (self.distance, self.behind) {
            (1, true) => ("", "behind the end of"),
            (1, false) => ("", "before the beginning of"),
            (_, true) => ("s", "behind the end of"),
            (_, false) => ("s", "before the beginning of"),
        };
        write!(f, "{} value{many} {side}", self.distance)
    }
}
