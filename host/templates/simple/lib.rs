//! {{Name}}: a moving average that forgets by what it reads, made of the kit's operations alone.

use longhaul_plugin_kit::api::metadata::Family;
use longhaul_plugin_kit::backbone::residual_init;
use longhaul_plugin_kit::ops::elementwise::Activation;
use longhaul_plugin_kit::options::integer;
use longhaul_plugin_kit::recurrences::diagonal::Transition;
use longhaul_plugin_kit::{Architecture, Block, Mixer, Tensor};

struct {{Type}}Mixer {
    expand: usize,
}

impl Mixer for {{Type}}Mixer {
    fn forward(&self, block: &mut Block<'_>, x: Tensor) -> Tensor {
        let (graph, width) = (&mut *block.graph, self.expand * x.cols());
        let all = graph.linear("in_proj", x, 3 * width, true);
        let (value, gate) = (all.columns(0, width), all.columns(width, width));
        // h = a h + (1 - a) v with a = sigmoid(-w): its logarithm is -softplus(w), and 1 - a is sigmoid(w).
        let write = all.columns(2 * width, width);
        let forgets = graph.activation(write, Activation::Softplus);
        let log_a = graph.scale(forgets, -1.0);
        let input = graph.gate(write, value, Activation::Sigmoid);
        let h = graph.diagonal_scan(Transition::Log(log_a), input);
        let y = graph.gate(gate, h, Activation::Silu);
        graph.linear_with("out_proj", y, x.cols(), false, residual_init(block.layers))
    }
}

/// The architecture `{{name}}`.
pub fn architecture() -> Architecture {
    Architecture {
        name: "{{name}}",
        title: "{{Name}}: a gated moving average",
        family: Family::LinearRnn,
        citation: "@misc{{{crate}}, title={{{Name}}}, author={Me}, year={{{year}}}}",
        options: vec![integer("expand", 1, 1, 16, "width of the average over the model width")],
        default_mlp: "none",
        mixer: |settings| Ok(Box::new({{Type}}Mixer { expand: settings.size("expand")? })),
    }
}

longhaul_plugin_kit::export!({{Type}}Plugin, crate::architecture());
