//! What follows the state space in each of the three: GELU, then a gate made of its result.

use longhaul_plugin_kit::initial::InitialValues;
use longhaul_plugin_kit::ops::elementwise::Activation;
use longhaul_plugin_kit::{Graph, Init, PluginError, Result, Tensor, options};

options! {
    /// How the result is gated.
    pub(crate) enum Glu => "after the GELU: full (W y sigmoid(V y)), half (y sigmoid(V y)), or none" {
        /// `(W y + b) sigmoid(V y + c)`.
        Full = "full",
        /// `y sigmoid(V y + c)`.
        Half = "half",
        /// y itself.
        None = "none",
    }

    /// Steps at first.
    pub(crate) struct StepOptions {
        dt_min: f64 = 0.001, 1e-6..=10.0 => "smallest step at first";
        dt_max: f64 = 0.1, 1e-6..=10.0 => "largest step at first";
    }
}

impl Glu {
    /// `y` after the GELU and the gate; matrices start as `weight`, biases as `bias`.
    pub(crate) fn forward(
        self,
        graph: &mut Graph,
        y: Tensor,
        weight: &Init,
        bias: &Init,
    ) -> Tensor {
        let y = graph.activation(y, Activation::Gelu);
        let project = |graph: &mut Graph, name: &str| {
            let shape = [y.cols(), y.cols()];
            let matrix = graph.param(&format!("{name}.weight"), &shape, weight.clone());
            let bias = graph.param(&format!("{name}.bias"), &shape[..1], bias.clone());
            graph.linear_by(y, matrix, Some(bias))
        };
        if self == Self::None {
            return y;
        }
        let value = match self {
            Self::Full => project(graph, "out1"),
            _ => y,
        };
        let gate = project(graph, "out2");
        graph.gate(gate, value, Activation::Sigmoid)
    }
}

/// The start of logarithms of steps: uniform between those of `dt_min` and `dt_max`.
///
/// # Errors
/// The smallest is larger than the largest.
pub(crate) fn log_steps(options: &StepOptions) -> Result<Init> {
    let (low, high) = (options.dt_min, options.dt_max);
    if low > high {
        return Err(PluginError::bad_option(format!(
            "dt_min={low} is larger than dt_max={high}: give the smaller step first"
        )));
    }
    Ok(Init::Uniform {
        low: low.ln() as f32,
        high: high.ln() as f32,
    })
}

/// A matrix and its bias as the reference implementation's framework starts them, or as every architecture here.
pub(crate) fn dense(start: InitialValues, reference: (Init, Init)) -> (Init, Init) {
    start.choose((Init::Linear { gain: 1.0 }, Init::Zeros), reference)
}
