//! Bands between buffers on a device: an operation whose kernel writes past its buffer is named, with the buffer,
//! though nothing else goes wrong.

use std::sync::Arc;

use longhaul_emulator::orders;
use longhaul_plugin_kit::api::author::Model;
use longhaul_plugin_kit::api::data::{Batch, Logits};
use longhaul_plugin_kit::api::error::PluginError;
use longhaul_plugin_kit::api::metadata::Family;
use longhaul_plugin_kit::cuda::device::{Device, Launch, Ptr};
use longhaul_plugin_kit::cuda::plugin::DeviceKitModel;
use longhaul_plugin_kit::engine::operation::{CudaRun, KernelSource};
use longhaul_plugin_kit::options::Settings;
use longhaul_plugin_kit::precision::Precision;
use longhaul_plugin_kit::testing::config;
use longhaul_plugin_kit::{
    Architecture, Block, Graph, Init, Mixer, Operation, Param, Result, Run, Tensor, kernel_params,
};

static SOURCE: KernelSource = KernelSource {
    file: "ones.cu",
    text: "KERNEL(32, ones, Ones) { for (int i = threadIdx.x; i < p.count; i += 32) p.y[i + p.first] = 1.0f; }\n",
    params: &[Ones::CPP],
};

kernel_params! {
    struct Ones { y: *mut f32, first: i32, count: i32 }
}

/// What writes beyond its place.
#[derive(Clone, Copy, PartialEq)]
enum Wrong {
    Nothing,
    Value,
    Gradient,
    Weight,
}

/// y = 1.
struct AllOnes {
    x: Tensor,
    y: Tensor,
    weight: Param,
    wrong: Wrong,
}

impl AllOnes {
    fn launch(run: &CudaRun<'_>, y: Ptr, first: i32, count: usize) -> Result<()> {
        let count = count as i32;
        run.launch(
            &SOURCE,
            "ones",
            Launch::flat(1, 32),
            &Ones { y, first, count },
        )
    }
}

impl Operation for AllOnes {
    fn name(&self) -> &'static str {
        "ones"
    }

    fn forward(&self, run: &Run<'_>) -> Result<()> {
        let mut y = run.value_mut(self.y);
        (0..run.rows() * run.length()).for_each(|at| y.row_mut(at).fill(1.0));
        Ok(())
    }

    fn backward(&self, _run: &Run<'_>) -> Result<()> {
        Ok(())
    }

    fn kernels(&self) -> Vec<&'static KernelSource> {
        vec![&SOURCE]
    }

    fn cuda_forward(&self, run: &CudaRun<'_>) -> Result<()> {
        let y = run.value(self.y);
        let beyond = 3 * usize::from(self.wrong == Wrong::Value);
        Self::launch(run, y.data, 0, y.rows * y.cols + beyond)
    }

    fn cuda_backward(&self, run: &CudaRun<'_>) -> Result<()> {
        let (x, adds) = run.grad_mut(self.x)?;
        if !adds {
            run.fill(x.data, 0.0, x.rows * x.cols)?;
        }
        match self.wrong {
            Wrong::Gradient => Self::launch(run, x.data, -1, 1),
            Wrong::Weight => {
                Self::launch(run, run.param_grad(self.weight), self.y.cols() as i32, 1)
            }
            _ => Ok(()),
        }
    }
}

impl Mixer for Wrong {
    fn forward(&self, block: &mut Block<'_>, x: Tensor) -> Tensor {
        let graph: &mut Graph = block.graph;
        let weight = graph.param("unused", &[x.cols()], Init::Ones);
        let y = graph.tensor(x.cols());
        graph.push(AllOnes {
            x,
            y,
            weight,
            wrong: *self,
        });
        y
    }
}

fn model(
    mixer: fn(&Settings) -> Result<Box<dyn Mixer>>,
    device: &Arc<dyn Device>,
) -> DeviceKitModel {
    let architecture = Architecture {
        name: "ones",
        title: "ones",
        family: Family::Convolution,
        citation: "",
        options: Vec::new(),
        default_mlp: "none",
        mixer,
    };
    DeviceKitModel::new(&architecture, &config(&architecture, &[], 8, 2), device).expect("a model")
}

/// What a training step and a feed answer.
fn answers(mixer: fn(&Settings) -> Result<Box<dyn Mixer>>) -> Vec<[Option<PluginError>; 2]> {
    let answer = |device: &Arc<dyn Device>| {
        let mut model = model(mixer, device);
        let (tokens, targets) = ([1, 2, 3, 4], [2, 3, 4, 5]);
        let batch = Batch::new(&tokens, &targets, 2, 2);
        let gradients = model.loss_and_gradients(&batch).err();
        let mut session = model.new_session(2).expect("a session");
        [gradients, session.feed(&batch, Logits::Last).err()]
    };
    orders(Precision::Float32).iter().map(answer).collect()
}

fn says(error: &Option<PluginError>, parts: &[&str]) {
    let error = error.as_ref().expect("an error").to_string();
    for part in parts {
        assert!(error.contains(part), "`{part}` is missing in: {error}");
    }
}

#[test]
fn what_stays_in_its_buffers_is_left_alone() {
    for [gradients, feed] in answers(|_| Ok(Box::new(Wrong::Nothing))) {
        assert!(
            gradients.is_none() && feed.is_none(),
            "{gradients:?} {feed:?}"
        );
    }
}

#[test]
fn an_operation_that_writes_behind_its_buffer_is_named() {
    let parts = [
        "forward of operation `ones` in `layers.0.mixer",
        ": wrote 1 value behind the end of the buffer ",
        " of operation `ones` in `layers.0.mixer",
    ];
    for [gradients, feed] in answers(|_| Ok(Box::new(Wrong::Value))) {
        says(&gradients, &parts);
        says(&feed, &parts);
    }
}

#[test]
fn an_operation_that_writes_before_its_gradient_is_named() {
    for [gradients, feed] in answers(|_| Ok(Box::new(Wrong::Gradient))) {
        let parts = [
            "backward of operation `ones` in `layers.1.mixer",
            ": wrote 1 value before the beginning of the gradient of buffer ",
        ];
        says(&gradients, &parts);
        assert!(feed.is_none(), "{feed:?}");
    }
}

#[test]
fn an_operation_that_writes_behind_a_parameters_gradient_is_named() {
    for [gradients, feed] in answers(|_| Ok(Box::new(Wrong::Weight))) {
        let parts = [
            "backward of operation `ones` in `layers.1.mixer",
            ": wrote 1 value behind the end of the gradient of parameter ",
        ];
        says(&gradients, &parts);
        assert!(feed.is_none(), "{feed:?}");
    }
}
