//! The linear recurrent unit (arXiv 2303.06349) as in NicolasZucchet/minimal-LRU.

use longhaul_plugin_kit::api::metadata::Family;
use longhaul_plugin_kit::initial::InitialValues;
use longhaul_plugin_kit::ops::elementwise::Activation;
use longhaul_plugin_kit::options::{Settings, or_usual};
use longhaul_plugin_kit::recurrences::diagonal::Transition;
use longhaul_plugin_kit::{
    Architecture, Block, Graph, Init, Mixer, Param, PluginError, Result, Tensor, options,
};

use crate::glu::{Glu, dense};

options! {
    struct Options {
        state: usize = 0, 0..=16384 => "complex states; 0 is the model width";
        r_min: f64 = 0.0, 0.0..=1.0 => "smallest modulus of the eigenvalues at first";
        r_max: f64 = 1.0, 0.0..=1.0 => "largest modulus of the eigenvalues at first";
        max_phase: f64 = std::f64::consts::TAU, 0.0..=std::f64::consts::TAU
            => "largest angle of the eigenvalues at first";
        glu: Glu;
        init: InitialValues;
    }
}

/// The architecture `lru`.
pub fn lru() -> Architecture {
    Architecture {
        name: "lru",
        title: "Linear recurrent unit: a stable complex diagonal, normalised",
        family: Family::Ssm,
        citation: CITATION,
        options: Options::default().specs(),
        default_mlp: "none",
        mixer: |settings| Ok(Box::new(Lru::new(settings)?)),
    }
}

const CITATION: &str = "@inproceedings{orvieto2023resurrecting,
  title={Resurrecting Recurrent Neural Networks for Long Sequences},
  author={Orvieto, Antonio and Smith, Samuel L and Gu, Albert and Fernando, Anushan and Gulcehre, Caglar and Pascanu, Razvan and De, Soham},
  booktitle={ICML}, year={2023}, note={arXiv:2303.06349}
}";

struct Lru {
    state: usize,
    /// Smallest and largest modulus, squared.
    squares: [f64; 2],
    max_phase: f64,
    glu: Glu,
    start: InitialValues,
}

impl Lru {
    fn new(settings: &Settings) -> Result<Self> {
        let options = Options::read(settings)?;
        let (low, high) = (options.r_min, options.r_max);
        if low > high {
            return Err(PluginError::bad_option(format!(
                "r_min={low} is larger than r_max={high}: give the smaller modulus first"
            )));
        }
        Ok(Self {
            state: or_usual(options.state, settings.d_model()),
            squares: [low * low, high * high],
            max_phase: options.max_phase,
            glu: options.glu,
            start: options.init,
        })
    }

    /// The parameters nu_log, theta_log and gamma_log: eigenvalues uniform on a ring (the paper's lemma 3.2), and the
    /// factor that gives every state the variance of its input.
    fn eigenvalues(&self, graph: &mut Graph) -> [Param; 3] {
        let shape = [self.state];
        let uniform = Init::Custom(|_, draw| draw());
        // A draw of 0 would be a modulus or an angle without a logarithm.
        let draws = |name: &str| {
            let draws = graph.drawn(name, &shape, &uniform).into_iter();
            draws.map(|draw| f64::from(draw).max(1e-7))
        };
        let [low, high] = self.squares;
        let square = |draw: f64| (low + draw * (high - low)).clamp(1e-14, 1.0 - 1e-7);
        let squares: Vec<f64> = draws("nu_log").map(square).collect();
        let nu = squares.iter().map(|square| (-0.5 * square.ln()).ln());
        let gamma = squares.iter().map(|square| 0.5 * (-square).ln_1p());
        let theta = draws("theta_log").map(|draw| (self.max_phase.max(1e-7) * draw).ln());
        let values = |values: &mut dyn Iterator<Item = f64>| {
            Init::Values(values.map(|value| value as f32).collect())
        };
        let starts = [
            ("nu_log", values(&mut nu.clone())),
            ("theta_log", values(&mut theta.clone())),
            ("gamma_log", values(&mut gamma.clone())),
        ];
        starts.map(|(name, start)| graph.param_without_decay(name, &shape, start))
    }
}

impl Mixer for Lru {
    fn forward(&self, block: &mut Block<'_>, x: Tensor) -> Tensor {
        let (graph, d_model, state) = (&mut *block.graph, x.cols(), self.state);
        let [nu, theta, gamma] = self.eigenvalues(graph).map(|param| graph.constant(param));
        let decay = graph.activation(nu, Activation::Exp);
        let decay = graph.scale(decay, -1.0);
        let angle = graph.activation(theta, Activation::Exp);
        let transition = graph.polar(decay, angle);
        let normal = |std: f64| Init::Normal { std: std as f32 };
        let into = normal((0.5 / d_model as f64).sqrt());
        let b = graph.linear_with("B", x, 2 * state, false, into);
        // The gain is a complex number with an angle of 0.
        let zero = graph.scale(gamma, 0.0);
        let gain = graph.polar(gamma, zero);
        let b = graph.complex_product(b, gain);
        let h = graph.diagonal_scan(Transition::Complex(transition), b);
        let out = normal((1.0 / state as f64).sqrt());
        let y = graph.linear_with("C", h, d_model, false, out);
        let d = graph.param_without_decay("D", &[d_model], normal(1.0));
        let d = graph.constant(d);
        let skip = graph.gate(d, x, Activation::Identity);
        let y = graph.add(y, skip);
        // As flax starts a dense layer: LeCun's normal.
        let (weight, bias) = dense(
            self.start,
            (normal((1.0 / d_model as f64).sqrt()), Init::Zeros),
        );
        self.glu.forward(graph, y, &weight, &bias)
    }
}
