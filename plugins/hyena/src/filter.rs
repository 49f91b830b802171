//! The implicit filter: a network with sines over the features of a position, times a window that decays
//! (arXiv 2302.10866, section 3.3).

use longhaul_plugin_kit::initial::InitialValues;
use longhaul_plugin_kit::ops::elementwise::Activation;
use longhaul_plugin_kit::ops::positions::Positions;
use longhaul_plugin_kit::options::{Settings, or_usual};
use longhaul_plugin_kit::{Graph, Init, PluginError, Result, Tensor, options};

/// Most taps: a layer keeps as many inputs of every channel.
const MOST_TAPS: usize = 1 << 20;

options! {
    pub(crate) enum PastFilter {
        Zero = "zero",
        Extended = "extended",
    }

    pub(crate) struct FilterOptions {
        filter_length: usize = 0, 0..=MOST_TAPS
            => "positions that the filter is made for; 0: the longest training length";
        past_filter: PastFilter
            => "past filter_length: zero (nothing older is seen), or extended (the network is asked beyond, up to reach times as far)";
        reach: usize = 8, 1..=1024 => "of past_filter=extended: how many times filter_length the filter is long";
        emb_dim: usize = 33, 3..=257 => "features of a position: itself, and a cosine and a sine a frequency; odd";
        filter_order: usize = 64, 1..=4096 => "width of the filter's network";
        inner_layers: usize = 2, 0..=16 => "layers of the filter's network between its first and its last";
        frequency: f32 = 14.0, 0.01..=1000.0 => "factor in the sines at first";
        fast_decay: f64 = 0.3, 1e-3..=1e3
            => "share of filter_length in which the fastest window falls to 1/100";
        slow_decay: f64 = 1.5, 1e-3..=1e3 => "and the slowest";
        shift: f64 = 0.0, 0.0..=10.0 => "what is added to the window";
        init: InitialValues;
    }
}

pub(crate) struct Filter {
    /// Positions that are 0 to 1.
    length: usize,
    /// Positions that it has.
    taps: usize,
    options: FilterOptions,
}

impl Filter {
    /// # Errors
    /// Options that make no filter.
    pub(crate) fn new(settings: &Settings, options: FilterOptions) -> Result<Self> {
        let trained = settings.config.max_train_length as usize;
        let length = or_usual(options.filter_length, trained);
        let reach = match options.past_filter {
            PastFilter::Extended => options.reach,
            PastFilter::Zero => 1,
        };
        let features = options.emb_dim;
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
            options,
        })
    }

    /// A linear layer of the network as PyTorch starts it, or with a bias of 0.
    fn dense(&self, graph: &mut Graph, name: &str, x: Tensor) -> Tensor {
        let FilterOptions {
            filter_order: width,
            init,
            ..
        } = self.options;
        let uniform = Init::within(1.0 / (x.cols() as f32).sqrt());
        let bias = init.choose(Init::Zeros, uniform.clone());
        let shape = [width, x.cols()];
        let weight = graph.param_without_decay(&format!("{name}.weight"), &shape, uniform);
        let bias = graph.param_without_decay(&format!("{name}.bias"), &[width], bias);
        graph.linear_by(x, weight, Some(bias))
    }

    /// Filters of `count` convolutions, each a table `[taps, channels]`.
    pub(crate) fn tables(&self, graph: &mut Graph, count: usize, channels: usize) -> Vec<Tensor> {
        let options = &self.options;
        let (features, width) = (options.emb_dim, options.filter_order);
        let mut h = graph.positions(Positions::Features, self.taps, features, self.length);
        let start = Init::Constant(options.frequency);
        let frequency = graph.param_without_decay("frequency", &[width], start);
        let frequency = graph.constant(frequency);
        for layer in 0..=options.inner_layers {
            h = self.dense(graph, &format!("in{layer}"), h);
            h = graph.gate(frequency, h, Activation::Identity);
            h = graph.activation(h, Activation::Sine);
        }
        // Rates are spread over the channels of all convolutions, those of the first before those of the second.
        let rates = |share: f64| -(0.01f64.ln()) / share;
        let (first, last) = (rates(options.slow_decay), rates(options.fast_decay));
        let step = (last - first) / (count * channels).saturating_sub(1).max(1) as f64;
        let rate = |index: usize| first + step * index as f64;
        let uniform = Init::within(1.0 / (width as f32).sqrt());
        let tables = (0..count).map(|index| {
            let name = format!("out{index}.weight");
            let weight = graph.param_without_decay(&name, &[channels, width], uniform.clone());
            let values = graph.linear_by(h, weight, None);
            let window = Positions::Decay {
                first: rate(index * channels),
                last: rate((index + 1) * channels - 1),
                shift: options.shift,
            };
            let window = graph.positions(window, self.taps, channels, self.length);
            graph.gate(window, values, Activation::Identity)
        });
        tables.collect()
    }
}
