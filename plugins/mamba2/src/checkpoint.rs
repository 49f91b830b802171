//! Mamba-2 checkpoints in the Hugging Face layout: names and options only.

use longhaul_plugin_kit::checkpoint::{Config, Format, Plan};
use longhaul_plugin_kit::{PluginError, Result};

/// The checkpoints this plugin reads.
pub const FORMATS: &[Format] = &[Format {
    model_type: "mamba2",
    read,
}];

/// Sizes of a Mamba-2 layer as a config states them.
pub struct Sizes {
    /// Heads, H.
    pub heads: usize,
    /// Channels a head.
    pub head_dim: usize,
    /// State size, N.
    pub state: usize,
    /// Groups that share B and C.
    pub groups: usize,
    /// d_inner over D.
    pub expand: usize,
    /// Taps of the convolution.
    pub conv: usize,
    /// Biases in the projections.
    pub bias: bool,
    /// Bias in the convolution.
    pub conv_bias: bool,
    /// Epsilon of the gated norm.
    pub epsilon: f64,
}

impl Sizes {
    /// Checks that the heads fill the inner width.
    ///
    /// # Errors
    /// If they do not.
    pub fn check(self, d_model: usize) -> Result<Self> {
        let inner = self.expand * d_model;
        if self.heads * self.head_dim != inner {
            return Err(PluginError::bad_option(format!(
                "config.json has {} heads of {} channels, which do not make the inner width {inner}",
                self.heads, self.head_dim
            )));
        }
        Ok(self)
    }

    /// Sets the options, each under `prefix`.
    pub fn options(&self, plan: &mut Plan, prefix: &str) {
        plan.option(&format!("{prefix}state"), self.state);
        plan.option(&format!("{prefix}head_dim"), self.head_dim);
        plan.option(&format!("{prefix}groups"), self.groups);
        plan.option(&format!("{prefix}expand"), self.expand);
        plan.option(&format!("{prefix}conv"), self.conv);
        plan.option(&format!("{prefix}bias"), self.bias);
        plan.option(&format!("{prefix}conv_bias"), self.conv_bias);
        plan.option(&format!("{prefix}norm_gate_epsilon"), self.epsilon);
    }

    /// The tensors of a layer's mixer, `theirs` being its name there.
    pub fn places(&self, plan: &mut Plan, theirs: &str, layer: usize) {
        let d_model = plan.d_model();
        let inner = self.heads * self.head_dim;
        let mixed = inner + 2 * self.groups * self.state;
        let projected = inner + mixed + self.heads;
        let mut whole = |name: &str, shape: &[usize]| {
            plan.whole(
                &format!("{theirs}.{name}"),
                shape,
                &format!("layers.{layer}.mixer.{name}"),
            );
        };
        whole("in_proj.weight", &[projected, d_model]);
        whole("conv1d.weight", &[mixed, 1, self.conv]);
        whole("dt_bias", &[self.heads]);
        whole("A_log", &[self.heads]);
        whole("D", &[self.heads]);
        whole("norm.weight", &[inner]);
        whole("out_proj.weight", &[d_model, inner]);
        if self.conv_bias {
            whole("conv1d.bias", &[mixed]);
        }
        if self.bias {
            whole("in_proj.bias", &[projected]);
            whole("out_proj.bias", &[d_model]);
        }
    }
}

fn read(config: &Config) -> Result<Plan> {
    config.expect_word("hidden_act", &["silu"])?;
    config.expect_free_time_step()?;
    let mut plan = Plan::new("mamba2", config)?;
    let epsilon = config.float_or("layer_norm_epsilon", 1e-5)?;
    let sizes = Sizes {
        heads: config.size("num_heads")?,
        head_dim: config.size("head_dim")?,
        state: config.size("state_size")?,
        groups: config.size_or("n_groups", 1)?,
        expand: config.size_or("expand", 2)?,
        conv: config.size_or("conv_kernel", 4)?,
        bias: config.boolean_or("use_bias", false)?,
        conv_bias: config.boolean_or("use_conv_bias", true)?,
        epsilon,
    };
    let sizes = sizes.check(plan.d_model())?;
    sizes.options(&mut plan, "");
    plan.option("norm", "rmsnorm");
    plan.option("norm_epsilon", epsilon);
    plan.option("mlp", "none");
    plan.ends(
        config,
        "backbone.embeddings.weight",
        "lm_head.weight",
        false,
    )?;
    let d_model = plan.d_model();
    plan.whole("backbone.norm_f.weight", &[d_model], "norm.weight");
    for layer in 0..plan.layers() {
        let theirs = format!("backbone.layers.{layer}");
        plan.whole(
            &format!("{theirs}.norm.weight"),
            &[d_model],
            &format!("layers.{layer}.norm1.weight"),
        );
        sizes.places(&mut plan, &format!("{theirs}.mixer"), layer);
    }
    Ok(plan)
}
