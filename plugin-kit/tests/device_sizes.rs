//! Sizes that the kernels do not take are refused when a model is built for a device, with what was asked for,
//! what the kernels take and what to do; the same model on the CPU is built.

use std::sync::Arc;

use longhaul_plugin_kit::api::error::ErrorKind;
use longhaul_plugin_kit::api::metadata::Family;
use longhaul_plugin_kit::cuda::device::{Device, Kernel, KernelSource, Launch};
use longhaul_plugin_kit::cuda::plugin::DeviceKitModel;
use longhaul_plugin_kit::model::KitModel;
use longhaul_plugin_kit::ops::attention::{AttentionSpec, PositionBias};
use longhaul_plugin_kit::ops::elementwise::Activation;
use longhaul_plugin_kit::testing::config;
use longhaul_plugin_kit::{Architecture, Block, Graph, Mixer, Result, Tensor};

/// A layer of one operation.
struct One(fn(&mut Graph, Tensor) -> Tensor);

impl Mixer for One {
    fn forward(&self, block: &mut Block<'_>, x: Tensor) -> Tensor {
        self.0(block.graph, x)
    }
}

fn architecture(
    mixer: fn(&longhaul_plugin_kit::options::Settings) -> Result<Box<dyn Mixer>>,
) -> Architecture {
    Architecture {
        name: "one",
        title: "one operation",
        family: Family::Convolution,
        citation: "",
        options: Vec::new(),
        default_mlp: "none",
        mixer,
    }
}

fn convolution<const WIDTH: usize>(graph: &mut Graph, x: Tensor) -> Tensor {
    graph.short_convolution("conv", x, WIDTH, true, Activation::Silu)
}

fn attention(graph: &mut Graph, x: Tensor) -> Tensor {
    let spec = AttentionSpec {
        heads: 1,
        kv_heads: 1,
        head_dim: x.cols(),
        scale: 1.0,
        window: None,
        bias: PositionBias::None,
    };
    graph.attention(x, x, x, spec)
}

fn device() -> Arc<dyn Device> {
    longhaul_emulator::devices().remove(0)
}

fn build(architecture: &Architecture, d_model: usize) -> Result<DeviceKitModel> {
    let config = config(architecture, &[], d_model, 1);
    KitModel::new(architecture, &config, false).expect("the CPU takes it");
    DeviceKitModel::new(architecture, &config, &device())
}

fn refused(architecture: &Architecture, d_model: usize, words: &[&str]) {
    let error = build(architecture, d_model).err().expect("refused");
    assert_eq!(error.kind, ErrorKind::Unsupported);
    for word in words {
        assert!(error.message.contains(word), "`{word}`: {}", error.message);
    }
}

#[test]
fn more_taps_than_the_kernels_take() {
    let most = architecture(|_| Ok(Box::new(One(convolution::<64>))));
    build(&most, 8).expect("the most taps");
    let more = architecture(|_| Ok(Box::new(One(convolution::<65>))));
    refused(&more, 8, &["65 taps", "at most 64", "--device cpu"]);
}

#[test]
fn heads_wider_than_the_kernels_take() {
    let one_head = architecture(|_| Ok(Box::new(One(attention))));
    build(&one_head, 256).expect("the widest head");
    refused(&one_head, 257, &["257 values", "up to 256", "--device cpu"]);
}

/// What does not fit a launch's numbers is not cut to what does.
#[test]
fn launches_beyond_32_bits_are_refused() {
    static NOTHING: KernelSource = KernelSource {
        file: "nothing.cu",
        text: "struct Nothing { u64 unused; };\nKERNEL(32, nothing, Nothing) { (void)p; }\n",
        params: &[],
    };
    let device = device();
    device.load(&[&NOTHING]).expect("a kernel that compiles");
    let kernel = Kernel {
        source: &NOTHING,
        name: "nothing",
    };
    device
        .launch(kernel, Launch::flat(1, 32), &[0; 8])
        .expect("one block");
    for (launch, what) in [
        (Launch::flat((1 << 32) + 1, 32), "grid"),
        (Launch::of([1, 65_536, 1], 32), "grid"),
        (
            Launch::flat(1, 32).with_shared((1 << 30) + 1),
            "shared memory",
        ),
    ] {
        let error = device.launch(kernel, launch, &[0; 8]).expect_err("refused");
        assert!(error.message.contains(what), "{}", error.message);
    }
}
