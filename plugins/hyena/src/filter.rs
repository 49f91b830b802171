//! The implicit filter: a network with sines over the features of a position, times a window that decays
//! (arXiv 2302.10866, section 3.3).

use longhaul_plugin_kit::api::metadata::OptionSpec;
use longhaul_plugin_kit::initial::InitialValues;
use longhaul_plugin_kit::ops::elementwise::Activation;
use longhaul_plugin_kit::ops::positions::Positions;
use longhaul_plugin_kit::options::{Settings, choice, float, integer};
use longhaul_plugin_kit::{Graph, Init, PluginError, Result, Tensor};

/// Most taps: a layer keeps as many inputs of every channel.
const MOST_TAPS: usize = 1 << 20;

pub(crate) struct Filter {
    /// Positions that are 0 to 1.
    length: usize,
    /// Positions that it has.
    taps: usize,
    features: usize,
    width: usize,
    inner: usize,
    frequency: f32,
    fast: f64,
    slow: f64,
    shift: f64,
    start: InitialValues,
}

impl Filter {
    pub(crate) fn options() -> Vec<OptionSpec> {
        vec![
            integer(
                "filter_length",
                0,
                0,
                1 << 20,
                "positions that the filter is made for; 0: the longest training length",
            ),
            choice(
                "past_filter",
                "zero",
                &["zero", "extended"],
                "past filter_length: zero (nothing older is seen), or extended (the network is asked beyond, up to reach times as far)",
            ),
            integer(
                "reach",
                8,
                1,
                1024,
                "of past_filter=extended: how many times filter_length the filter is long",
            ),
            integer(
                "emb_dim",
                33,
                3,
                257,
                "features of a position: itself, and a cosine and a sine a frequency; odd",
            ),
            integer("filter_order", 64, 1, 4096, "width of the filter's network"),
            integer(
                "inner_layers",
                2,
                0,
                16,
                "layers of the filter's network between its first and its last",
            ),
            float(
                "frequency",
                14.0,
                0.01,
                1000.0,
                "factor in the sines at first",
            ),
            float(
                "fast_decay",
                0.3,
                1e-3,
                1e3,
                "share of filter_length in which the fastest window falls to 1/100",
            ),
            float("slow_decay", 1.5, 1e-3, 1e3, "and the slowest"),
            float("shift", 0.0, 0.0, 10.0, "what is added to the window"),
        ]
    }

    /// # Errors
    /// Options that make no filter.
    pub(crate) fn of(settings: &Settings) -> Result<Self> {
        let length = match settings.size("filter_length")? {
            0 => settings.config.max_train_length as usize,
            length => length,
        };
        let reach = match settings.text("past_filter")? {
            "extended" => settings.size("reach")?,
            _ => 1,
        };
        let features = settings.size("emb_dim")?;
        if features.is_multiple_of(2) {
            return Err(PluginError::bad_option(format!(
                "emb_dim={features} is even: a position and pairs of cosine and sine are an odd number"
            )));
        }
        let taps = length.max(1).saturating_mul(reach);
        if taps > MOST_TAPS {
            return Err(PluginError::bad_option(format!(
                "a filter of {length} positions, {reach} times: at most {MOST_TAPS} in all; set filter_length, or a smaller reach"
            )));
        }
        Ok(Self {
            length: length.max(1),
            taps,
            features,
            width: settings.size("filter_order")?,
            inner: settings.size("inner_layers")?,
            frequency: settings.float("frequency")? as f32,
            fast: settings.float("fast_decay")?,
            slow: settings.float("slow_decay")?,
            shift: settings.float("shift")?,
            start: InitialValues::of(settings)?,
        })
    }

    /// A linear layer of the network as PyTorch starts it, or with a bias of 0.
    fn dense(&self, graph: &mut Graph, name: &str, x: Tensor) -> Tensor {
        let bound = 1.0 / (x.cols() as f32).sqrt();
        let bias = self.start.choose(Init::Zeros, Init::within(bound));
        let weight = graph.param_without_decay(
            &format!("{name}.weight"),
            &[self.width, x.cols()],
            Init::within(bound),
        );
        let bias = graph.param_without_decay(&format!("{name}.bias"), &[self.width], bias);
        graph.linear_by(x, weight, Some(bias))
    }

    /// Filters of `count` convolutions, each a table `[taps, channels]`.
    pub(crate) fn tables(&self, graph: &mut Graph, count: usize, channels: usize) -> Vec<Tensor> {
        let mut h = graph.positions(Positions::Features, self.taps, self.features, self.length);
        let frequency =
            graph.param_without_decay("frequency", &[self.width], Init::Constant(self.frequency));
        let frequency = graph.constant(frequency);
        for layer in 0..=self.inner {
            h = self.dense(graph, &format!("in{layer}"), h);
            h = graph.gate(frequency, h, Activation::Identity);
            h = graph.activation(h, Activation::Sine);
        }
        // Rates are spread over the channels of all convolutions, those of the first before those of the second.
        let rates = |share: f64| -(0.01f64.ln()) / share;
        let (first, last) = (rates(self.slow), rates(self.fast));
        let step = (last - first) / (count * channels).saturating_sub(1).max(1) as f64;
        let rate = |index: usize| first + step * index as f64;
        let bound = 1.0 / (self.width as f32).sqrt();
        let tables = (0..count).map(|index| {
            let name = format!("out{index}.weight");
            let weight =
                graph.param_without_decay(&name, &[channels, self.width], Init::within(bound));
            let values = graph.linear_by(h, weight, None);
            let window = Positions::Decay {
                first: rate(index * channels),
                last: rate((index + 1) * channels - 1),
                shift: self.shift,
            };
            let window = graph.positions(window, self.taps, channels, self.length);
            graph.gate(window, values, Activation::Identity)
        });
        tables.collect()
    }
}
