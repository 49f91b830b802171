//! Stored values on the emulated card that has them in bfloat16: how they are rounded, and what it tells of wrong kernels.

use longhaul_emulator::Emulator;
use longhaul_plugin_kit::cuda::device::{
    Device, Kernel, KernelParams, KernelSource, Launch, Ptr, Stored,
};
use longhaul_plugin_kit::cuda::memory::to_bytes;
use longhaul_plugin_kit::cuda::storage::Storage;
use longhaul_plugin_kit::kernel_params;

static SOURCE: KernelSource = KernelSource {
    file: "stored.cu",
    text: include_str!("stored.cu"),
    params: &[Store::CPP, Read::CPP],
};

kernel_params! {
    struct Store { x: *const f32, y: *mut Stored } // [32]
}

kernel_params! {
    struct Read { x: *const Stored, y: *mut f32 } // [32]
}

const COUNT: usize = 32;

/// Halves of units in the last place below and above, with an odd and an even neighbour; the largest; less than the
/// smallest normal one; infinite; none.
fn values() -> Vec<f32> {
    let bits = [
        0x3f80_8000,
        0x3f81_8000,
        0x3f80_7fff,
        0x3f80_8001,
        0xbf81_8000,
        0x7f7f_ffff,
        0x0000_8000,
        0x0001_8000,
        0x7f80_0000,
        0xff80_0000,
        0x7fff_ffff,
        0x7f80_0001,
        0xffff_ffff,
    ];
    let known = bits.map(f32::from_bits).into_iter();
    let more = (0..).map(|i| (i as f32 - 9.0) / 3.0);
    known.chain(more).take(COUNT).collect()
}

struct Bench {
    device: Emulator,
    x: Ptr,
    y: Ptr,
}

impl Bench {
    fn new() -> Self {
        let device = Emulator::beside_target().with_storage(Storage::Bf16);
        device.load(&[&SOURCE]).expect("a source that compiles");
        let memory = || device.allocate(4 * COUNT).expect("memory");
        let (x, y) = (memory(), memory());
        device.upload(x, &to_bytes(&values())).expect("an upload");
        Self { device, x, y }
    }

    fn launch(&self, name: &'static str, params: &impl KernelParams) -> Result<(), String> {
        let kernel = Kernel {
            source: &SOURCE,
            name,
        };
        let result = self
            .device
            .launch(kernel, Launch::flat(1, 32), params.bytes());
        result.map_err(|error| error.message.to_string())
    }

    fn found(&self, memory: Ptr) -> Vec<f32> {
        let mut bytes = vec![0; 4 * COUNT];
        self.device
            .download(memory, &mut bytes)
            .expect("a download");
        let words = bytes.as_chunks::<4>().0;
        words.iter().map(|word| f32::from_le_bytes(*word)).collect()
    }
}

fn assert_rounded(found: &[f32]) {
    for (found, value) in found.iter().zip(values()) {
        let expected = Storage::Bf16.round(value);
        let same = found.to_bits() == expected.to_bits() || found.is_nan() && value.is_nan();
        assert!(
            same,
            "{value:e} is stored as {found:e}, and should be as {expected:e}"
        );
    }
}

#[test]
fn what_is_stored_is_rounded_to_the_nearest() {
    let bench = Bench::new();
    let (x, y) = (bench.x, bench.y);
    bench
        .launch("store", &Store { x, y })
        .expect("a kernel that is right");
    assert_rounded(&bench.found(y));
}

#[test]
fn what_is_read_is_what_was_stored() {
    let bench = Bench::new();
    let (x, y) = (bench.x, bench.y);
    bench
        .launch("read", &Read { x, y })
        .expect("a kernel that is right");
    assert_rounded(&bench.found(y));
}

#[test]
fn a_buffer_of_two_types_is_told() {
    let bench = Bench::new();
    let (x, y) = (bench.x, bench.y);
    bench
        .launch("store", &Store { x, y })
        .expect("a kernel that is right");
    let error = bench
        .launch("read", &Read { x, y })
        .expect_err("x was float32");
    assert!(
        error.contains("declared as Stored here and as Float32"),
        "{error}"
    );
    // Another layout may have another type there.
    bench.device.fill(x, 0, COUNT).expect("zeros");
    bench.device.fill(y, 0, COUNT).expect("zeros");
    bench
        .launch("read", &Read { x, y })
        .expect("a kernel that is right");
}

#[test]
fn what_is_not_the_same_in_float32_is_told() {
    let bench = Bench::new();
    let (x, y) = (bench.x, bench.y);
    let error = bench
        .launch("mistakes_the_type", &Read { x, y })
        .expect_err("another type");
    assert!(
        error.contains("with activations in bfloat16, and"),
        "{error}"
    );
}

#[test]
fn what_is_read_again_may_be_rounded_twice() {
    let bench = Bench::new();
    let (x, y) = (bench.x, bench.y);
    bench.device.fill(y, 1.0f32.to_bits(), COUNT).expect("ones");
    bench
        .launch("add", &Store { x, y })
        .expect("a kernel that is right");
    let finite = bench.found(y).into_iter().zip(values()).skip(13);
    for (found, value) in finite {
        let exact = 1.0 + 1.5 * value;
        assert!(
            (found - exact).abs() <= exact.abs().max(1.0) / 128.0,
            "{found} and {exact}"
        );
    }
}
