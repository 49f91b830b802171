//! S5 (arXiv 2208.04933) as in lindermanlab/S5: one system for all channels, of conjugate pairs of which one half is
//! kept.

use longhaul_plugin_kit::api::metadata::Family;
use longhaul_plugin_kit::initial::InitialValues;
use longhaul_plugin_kit::ops::elementwise::Activation;
use longhaul_plugin_kit::options::Settings;
use longhaul_plugin_kit::recurrences::diagonal::{Discretisation, Transition};
use longhaul_plugin_kit::{Architecture, Block, Init, Mixer, PluginError, Result, Tensor, options};

use crate::glu::{Glu, StepOptions, dense, log_steps};
use crate::hippo::angles;

options! {
    struct Options {
        state: usize = 64, 2..=512 => "real states, in conjugate pairs";
        blocks: usize = 1, 1..=64 => "equal parts of the state that start alike";
        discretisation: Discretisation;
        steps: StepOptions;
        glu: Glu = Glu::Half;
        init: InitialValues;
    }
}

/// The architecture `s5`.
pub fn s5() -> Architecture {
    Architecture {
        name: "s5",
        title: "S5: one complex diagonal state space for all channels",
        family: Family::Ssm,
        citation: CITATION,
        options: Options::default().specs(),
        default_mlp: "none",
        mixer: |settings| Ok(Box::new(S5::new(settings)?)),
    }
}

const CITATION: &str = "@inproceedings{smith2023s5,
  title={Simplified State Space Layers for Sequence Modeling},
  author={Smith, Jimmy T.H. and Warrington, Andrew and Linderman, Scott W.},
  booktitle={ICLR}, year={2023}, note={arXiv:2208.04933}
}";

struct S5 {
    /// Imaginary parts of the eigenvalues at first, one of each pair.
    angles: Vec<f32>,
    discretisation: Discretisation,
    log_steps: Init,
    glu: Glu,
    start: InitialValues,
}

impl S5 {
    fn new(settings: &Settings) -> Result<Self> {
        let options = Options::read(settings)?;
        let (state, blocks) = (options.state, options.blocks);
        if !state.is_multiple_of(2 * blocks) {
            return Err(PluginError::bad_option(format!(
                "state={state} is no multiple of 2 blocks={blocks}: every block has conjugate pairs"
            )));
        }
        // Of each pair the one with a negative angle, the most negative first, as there.
        let block: Vec<f32> = angles(state / blocks)
            .iter()
            .map(|&angle| -angle as f32)
            .collect();
        Ok(Self {
            angles: block.repeat(blocks),
            discretisation: options.discretisation,
            log_steps: log_steps(&options.steps)?,
            glu: options.glu,
            start: options.init,
        })
    }
}

impl Mixer for S5 {
    fn forward(&self, block: &mut Block<'_>, x: Tensor) -> Tensor {
        let (graph, d_model) = (&mut *block.graph, x.cols());
        let pairs = self.angles.len();
        let starts = [
            ("Lambda_re", Init::Constant(-0.5)),
            ("Lambda_im", Init::Values(self.angles.clone())),
            ("log_step", self.log_steps.clone()),
        ];
        let [re, im, log_step] = starts.map(|(name, start)| {
            let param = graph.param_without_decay(name, &[pairs], start);
            graph.constant(param)
        });
        let step = graph.activation(log_step, Activation::Exp);
        let (transition, gain) = graph.discretise(self.discretisation, re, im, step);
        let normal = |variance: f64| Init::Normal {
            std: variance.sqrt() as f32,
        };
        // There what is drawn is turned by the eigenvectors, which leaves its law as it is.
        let into = normal(0.5 / d_model as f64);
        let b = graph.linear_with("B", x, 2 * pairs, false, into);
        let b = graph.complex_product(b, gain);
        let h = graph.diagonal_scan(Transition::Complex(transition), b);
        let out = normal(0.5 / pairs as f64);
        let y = graph.linear_with("C", h, d_model, false, out);
        // The other half of the pairs gives the same.
        let y = graph.scale(y, 2.0);
        let d = graph.param_without_decay("D", &[d_model], normal(1.0));
        let d = graph.constant(d);
        let skip = graph.gate(d, x, Activation::Identity);
        let y = graph.add(y, skip);
        // As flax starts a dense layer: LeCun's normal.
        let (weight, bias) = dense(self.start, (normal(1.0 / d_model as f64), Init::Zeros));
        self.glu.forward(graph, y, &weight, &bias)
    }
}
