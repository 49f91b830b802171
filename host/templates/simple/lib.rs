//! {{Name}}: a gated short convolution, made of the kit's operations alone.

use longhaul_plugin_kit::api::metadata::Family;
use longhaul_plugin_kit::ops::elementwise::Activation;
use longhaul_plugin_kit::options::integer;
use longhaul_plugin_kit::{Architecture, Block, Mixer, Tensor};

struct {{Type}}Mixer {
    taps: usize,
}

impl Mixer for {{Type}}Mixer {
    fn forward(&self, block: &mut Block<'_>, x: Tensor) -> Tensor {
        let graph = &mut *block.graph;
        let d_model = x.cols();
        let both = graph.linear("in_proj", x, 2 * d_model, false);
        let (value, gate) = (both.columns(0, d_model), both.columns(d_model, d_model));
        let mixed = graph.short_convolution("conv1d", value, self.taps, true, Activation::Silu);
        let gated = graph.gate(gate, mixed, Activation::Silu);
        graph.linear("out_proj", gated, d_model, false)
    }
}

/// The architecture `{{name}}`.
pub fn architecture() -> Architecture {
    Architecture {
        name: "{{name}}",
        title: "{{Name}}: a gated short convolution",
        family: Family::Convolution,
        citation: "@misc{{{crate}}, title={{{Name}}}, author={Me}, year={{{year}}}}",
        options: vec![integer("taps", 4, 2, 64, "taps of the convolution")],
        default_mlp: "none",
        mixer: |settings| Ok(Box::new({{Type}}Mixer { taps: settings.size("taps")? })),
    }
}

longhaul_plugin_kit::export!({{Type}}Plugin, crate::architecture());
