//! What the emulated card tells of wrong kernels: each here has one mistake.

use std::sync::Arc;

use longhaul_emulator::orders;
use longhaul_plugin_kit::cuda::device::{Device, Kernel, KernelParams, KernelSource, Launch};
use longhaul_plugin_kit::kernel_params;
use longhaul_plugin_kit::precision::Precision;

static SOURCE: KernelSource = KernelSource {
    file: "faults.cu",
    text: include_str!("faults.cu"),
    params: &[Values::CPP],
};

const COUNT: usize = 64;

kernel_params! {
    struct Values {
        x: *mut f32,
        unused: u64,
    }
}

/// What a kernel left in the values, which were 0 before, or what was wrong with it.
fn run(
    device: &Arc<dyn Device>,
    name: &'static str,
    blocks: usize,
    threads: u32,
) -> Result<Vec<f32>, String> {
    device.load(&[&SOURCE]).expect("a source that compiles");
    let x = device.allocate(4 * COUNT).expect("memory");
    device.fill(x, 0, COUNT).expect("zeros");
    let kernel = Kernel {
        source: &SOURCE,
        name,
    };
    let launch = Launch::flat(blocks, threads);
    let params = Values { x, unused: 0 };
    let result = device.launch(kernel, launch, params.bytes());
    result.map_err(|error| error.message.to_string())?;
    let mut bytes = vec![0; 4 * COUNT];
    device.download(x, &mut bytes).expect("a download");
    let word = |four: &[u8]| f32::from_le_bytes(four.try_into().expect("four bytes"));
    Ok(bytes.chunks(4).map(word).collect())
}

fn refused(name: &'static str, threads: u32, words: &str) {
    for device in orders(Precision::Float32) {
        let error = run(&device, name, 1, threads).expect_err(name);
        assert!(error.contains(words), "{name}: {error}");
        assert!(error.contains(name), "{error}");
    }
}

#[test]
fn threads_that_wait_for_what_others_do_not_reach_are_told() {
    refused("some_reach_a_barrier", 32, "only some of the threads");
    refused("different_barriers", 64, "at different barriers");
    refused("different_shuffles", 32, "at different places");
    refused("partial_shuffle", 32, "a shuffle in a partial warp");
}

#[test]
fn whole_warps_may_end_early() {
    for device in orders(Precision::Float32) {
        let x = run(&device, "whole_warps_end", 1, 64).expect("a kernel that is right");
        assert_eq!(x[..4], [1.0, 0.0, 3.0, 2.0]);
    }
}

#[test]
fn what_depends_on_the_order_of_blocks_or_threads_differs_between_the_devices() {
    for (name, blocks) in [
        ("blocks_in_turn", 32),
        ("threads_in_turn", 1),
        ("blocks_to_the_middle", 33),
        ("threads_to_the_middle", 1),
    ] {
        let devices = orders(Precision::Float32);
        // Under the sanitizers, and where accesses are watched, there is one.
        if let [one, other] = devices.as_slice() {
            let [one, other] =
                [one, other].map(|device| run(device, name, blocks, 32).expect("a run"));
            assert_ne!(one, other, "{name}");
        }
    }
}
