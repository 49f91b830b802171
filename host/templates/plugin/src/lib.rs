//! {{Name}}: a gated linear recurrence. This file says what a layer is, `recurrence` what it computes over
//! positions{{files}}. Put yours in the place of each.

{{forms}}mod recurrence;

use longhaul_plugin_kit::api::metadata::Family;
use longhaul_plugin_kit::backbone::residual_init;
use longhaul_plugin_kit::ops::elementwise::Activation;
use longhaul_plugin_kit::options::Settings;
use longhaul_plugin_kit::{Architecture, Block, Mixer, PluginError, Result, Tensor, options};

use crate::recurrence::Average;

options! {
    struct Options {
        expand: usize = 1, 1..=16 => "width of the recurrence over the model width";
    }
}

/// The architecture `{{name}}`.
pub fn architecture() -> Architecture {
    Architecture {
        name: "{{name}}",
        title: "{{Name}}: a gated linear recurrence",
        family: Family::LinearRnn,
        citation: "@misc{{{crate}}, title={{{Name}}}, author={Me}, year={{{year}}}}",
        options: Options::default().specs(),
        default_mlp: "none",
        mixer: |settings| Ok(Box::new({{Type}}Mixer::new(settings)?)),
    }
}

struct {{Type}}Mixer {
    width: usize,
}

impl {{Type}}Mixer {
    fn new(settings: &Settings) -> Result<Self> {
        let width = Options::read(settings)?.expand * settings.d_model();
        if width > 1 << 16 {
            // An option the limits cannot refuse is refused here, with what to do.
            return Err(PluginError::bad_option(format!(
                "a recurrence of {width} channels; use a smaller expand or d_model"
            )));
        }
        Ok(Self { width })
    }
}

impl Mixer for {{Type}}Mixer {
    fn forward(&self, block: &mut Block<'_>, x: Tensor) -> Tensor {
        let graph = &mut *block.graph;
        let width = self.width;
        let all = graph.linear("in_proj", x, 3 * width, true);
        let (input, gate) = (all.columns(0, width), all.columns(width, width));
        let h = graph.record(Average { x: input, gate });
        let gated = graph.gate(all.columns(2 * width, width), h, Activation::Silu);
        let init = residual_init(block.layers);
        graph.linear_with("out_proj", gated, x.cols(), false, init)
    }
}

longhaul_plugin_kit::export!({{Type}}Plugin, crate::architecture());
