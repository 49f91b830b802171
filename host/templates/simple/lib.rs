//! {{Name}}: a moving average that forgets by what it reads, made of the kit's operations alone.

use longhaul_plugin_kit::api::metadata::Family;
use longhaul_plugin_kit::ops::elementwise::Activation;
use longhaul_plugin_kit::recurrences::diagonal::Transition;
use longhaul_plugin_kit::{Architecture, Block, Mixer, Tensor, options};

options! {
    struct {{Type}}Mixer { expand: usize = 1, 1..=16 => "width over the model width"; }
}

impl Mixer for {{Type}}Mixer {
    fn forward(&self, block: &mut Block<'_>, x: Tensor) -> Tensor {
        let (graph, width) = (&mut *block.graph, self.expand * x.cols());
        let all = graph.linear("in_proj", x, 3 * width, true);
        let part = |index: usize| all.columns(index * width, width);
        // h = a h + (1 - a) v, a = sigmoid(..): the scan is given the logarithm of a.
        let log_a = graph.activation(part(0), Activation::LogSigmoid);
        let input = graph.gate(log_a, part(1), Activation::OneMinusExp);
        let h = graph.diagonal_scan(Transition::Log(log_a), input);
        let y = graph.gate(part(2), h, Activation::Silu);
        graph.linear("out_proj", y, x.cols(), false)
    }
}

/// The architecture `{{name}}`.
pub fn architecture() -> Architecture {
    Architecture {
        name: "{{name}}",
        title: "{{Name}}: a gated moving average",
        family: Family::LinearRnn,
        citation: "@misc{{{crate}}, title={{{Name}}}, author={Me}, year={{{year}}}}",
        options: {{Type}}Mixer::default().specs(),
        default_mlp: "none",
        mixer: |settings| Ok(Box::new({{Type}}Mixer::read(settings)?)),
    }
}

longhaul_plugin_kit::export!({{Type}}Plugin, crate::architecture());
