//! What one launch may ask of a card, checked before the driver is asked: its own answer is one code for
//! every reason.

use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys;

use super::device::Launch;

/// Bytes of parameters that every driver and card takes.
pub const MOST_PARAMETER_BYTES: usize = 4096;

/// Dynamic shared memory that a kernel may have without being asked for more.
pub const PLAIN_SHARED_BYTES: u32 = 48 * 1024;

/// A card's limits.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Threads of a block.
    threads: u32,
    /// Threads of a block in x, y, z.
    block: [u32; 3],
    /// Blocks in x, y, z.
    grid: [u32; 3],
    /// Bytes of shared memory of a block, static and dynamic.
    shared_bytes: u32,
}

/// A kernel's own limits.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Threads of a block that it was compiled for.
    pub threads: u32,
    /// Bytes of static shared memory that it takes.
    pub static_bytes: u32,
}

impl Limits {
    /// Asks the driver.
    ///
    /// # Errors
    /// The driver's.
    pub fn of(device: sys::CUdevice) -> Result<Self, DriverError> {
        use sys::CUdevice_attribute as A;
        let ask = |which| {
            // SAFETY: the device is the driver's own handle.
            let value = unsafe { result::device::get_attribute(device, which) };
            value.map(|value| u32::try_from(value).unwrap_or(0))
        };
        Ok(Self {
            threads: ask(A::CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK)?,
            block: [
                ask(A::CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_X)?,
                ask(A::CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Y)?,
                ask(A::CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Z)?,
            ],
            grid: [
                ask(A::CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_X)?,
                ask(A::CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Y)?,
                ask(A::CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Z)?,
            ],
            shared_bytes: ask(A::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?,
        })
    }

    /// Refuses a launch that the card cannot run: what was asked for and what there is.
    pub fn check(&self, bounds: Bounds, launch: Launch, params: usize) -> Result<(), String> {
        let refuse = |what: &str, asked: String, most: String| {
            Err(format!(
                "the launch asks for {asked} {what}, and the card takes {most}; choose a smaller model, batch or length"
            ))
        };
        let fits = |sizes: [u32; 3], most: [u32; 3]| {
            let mut pairs = sizes.iter().zip(most);
            pairs.all(|(size, most)| (1..=most).contains(size))
        };
        let show = |sizes: [u32; 3]| format!("{} x {} x {}", sizes[0], sizes[1], sizes[2]);
        if !fits(launch.grid, self.grid) {
            return refuse("blocks", show(launch.grid), show(self.grid));
        }
        if !fits(launch.block, self.block) {
            return refuse("threads a block", show(launch.block), show(self.block));
        }
        let threads: u64 = launch.block.iter().map(|&size| u64::from(size)).product();
        if threads > u64::from(self.threads) {
            return refuse(
                "threads a block",
                threads.to_string(),
                self.threads.to_string(),
            );
        }
        if threads > u64::from(bounds.threads) {
            return Err(format!(
                "the launch asks for {threads} threads a block, and the kernel was compiled for {}; \
                 this is a mistake in the plugin: launch fewer, or raise the number in KERNEL",
                bounds.threads
            ));
        }
        let shared = u64::from(launch.shared_bytes) + u64::from(bounds.static_bytes);
        if shared > u64::from(self.shared_bytes) {
            return refuse(
                "bytes of shared memory a block",
                shared.to_string(),
                self.shared_bytes.to_string(),
            );
        }
        if params > MOST_PARAMETER_BYTES {
            return Err(format!(
                "the kernel's parameter has {params} bytes, and a launch takes {MOST_PARAMETER_BYTES}; \
                 this is a mistake in the plugin: put what is large into a buffer"
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Bounds, Limits};
    use crate::cuda::device::Launch;

    const CARD: Limits = Limits {
        threads: 1024,
        block: [1024, 1024, 64],
        grid: [(1 << 31) - 1, 65535, 65535],
        shared_bytes: 227 << 10,
    };
    const BOUNDS: Bounds = Bounds {
        threads: 256,
        static_bytes: 1024,
    };

    fn launch(grid: [u32; 3], block: [u32; 3], shared_bytes: u32) -> Launch {
        Launch {
            grid,
            block,
            shared_bytes,
        }
    }

    #[test]
    fn what_the_card_takes_passes() {
        for fits in [
            launch([1, 1, 1], [1, 1, 1], 0),
            launch([(1 << 31) - 1, 65535, 65535], [256, 1, 1], 226 << 10),
            launch([1, 1, 1], [2, 2, 64], 0),
        ] {
            CARD.check(BOUNDS, fits, 4096).unwrap();
        }
    }

    #[test]
    fn each_limit_is_named_with_what_was_asked_and_what_there_is() {
        let one = [1, 1, 1];
        let cases = [
            (
                launch([1, 65536, 1], one, 0),
                8,
                ["1 x 65536 x 1 blocks", "x 65535"],
            ),
            (
                launch([1 << 31, 1, 1], one, 0),
                8,
                ["2147483648 x 1 x 1 blocks", "2147483647 x"],
            ),
            (
                launch([0, 1, 1], one, 0),
                8,
                ["0 x 1 x 1 blocks", "x 65535"],
            ),
            (
                launch(one, [1, 1, 65], 0),
                8,
                ["1 x 1 x 65 threads", "x 64"],
            ),
            (launch(one, [32, 32, 2], 0), 8, ["2048 threads", "1024"]),
            (
                launch(one, [512, 1, 1], 0),
                8,
                ["512 threads", "compiled for 256"],
            ),
            (
                launch(one, one, 227 << 10),
                8,
                ["233472 bytes of shared", "232448"],
            ),
            (launch(one, one, 0), 4104, ["4104 bytes", "4096"]),
        ];
        for (wrong, params, words) in cases {
            let refusal = CARD.check(BOUNDS, wrong, params).unwrap_err();
            for word in words {
                assert!(refusal.contains(word), "`{word}` is missing in: {refusal}");
            }
        }
    }
}
