//! Mamba checkpoints in the Hugging Face layout, and in state-spaces' own: names and options only.

use longhaul_plugin_kit::Result;
use longhaul_plugin_kit::checkpoint::state_spaces::{HARMLESS, SSM_HARMLESS, blocks, mixer};
use longhaul_plugin_kit::checkpoint::{Config, Format, Plan};

/// The checkpoints this plugin reads.
pub const FORMATS: &[Format] = &[
    Format {
        model_type: "mamba",
        harmless: &[
            "rescale_prenorm_residual",
            "residual_in_fp32",
            "time_step_floor",
            "time_step_init_scheme",
            "time_step_max",
            "time_step_min",
            "time_step_scale",
            "use_associative_scan",
            "use_mambapy",
        ],
        read,
    },
    Format {
        model_type: "mamba_ssm-mamba",
        harmless: HARMLESS,
        read: read_state_spaces,
    },
];

fn read(config: &Config) -> Result<Plan> {
    config.expect_word("hidden_act", &["silu", "swish"])?;
    let mut plan = Plan::new("mamba", config)?;
    let d_model = plan.d_model();
    let (state, conv) = (
        config.size("state_size")?,
        config.size_or("conv_kernel", 4)?,
    );
    let expand = config.size_or("expand", 2)?;
    let inner = expand * d_model;
    let same = config.size_or("intermediate_size", inner)? == inner;
    config.expect(
        "intermediate_size",
        same,
        &format!("expand times hidden_size, {inner}"),
    )?;
    let automatic = config.expect_word("time_step_rank", &["auto"]).is_ok();
    let dt_rank = if automatic {
        d_model.div_ceil(16)
    } else {
        config.size("time_step_rank")?
    };
    let bias = config.boolean_or("use_bias", false)?;
    let conv_bias = config.boolean_or("use_conv_bias", true)?;
    plan.option_of("state", "state_size", state);
    plan.option_of("expand", "expand", expand);
    plan.option_of("conv", "conv_kernel", conv);
    plan.option_of("dt_rank", "time_step_rank", dt_rank);
    plan.option_of("bias", "use_bias", bias);
    plan.option_of("conv_bias", "use_conv_bias", conv_bias);
    plan.option("norm", "rmsnorm");
    let epsilon = config.positive_or("layer_norm_epsilon", 1e-5)?;
    plan.option_of("norm_epsilon", "layer_norm_epsilon", epsilon);
    plan.option("mlp", "none");
    plan.ends(config, "backbone.embeddings.weight", "lm_head.weight", true)?;
    plan.whole("backbone.norm_f.weight", &[d_model], "norm.weight");
    let sizes = Sizes {
        inner,
        state,
        conv,
        dt_rank,
        bias,
        conv_bias,
    };
    for layer in 0..plan.layers() {
        let theirs = format!("backbone.layers.{layer}");
        plan.whole(
            &format!("{theirs}.norm.weight"),
            &[d_model],
            &format!("layers.{layer}.norm1.weight"),
        );
        sizes.places(&mut plan, &mixer(layer), layer);
    }
    Ok(plan)
}

/// Sizes of a layer, whose tensors have the same names in all formats.
pub struct Sizes {
    /// d_inner.
    pub inner: usize,
    /// N.
    pub state: usize,
    /// Taps of the convolution.
    pub conv: usize,
    /// Rank of dt's projection.
    pub dt_rank: usize,
    /// Biases in the projections.
    pub bias: bool,
    /// Bias in the convolution.
    pub conv_bias: bool,
}

impl Sizes {
    /// The tensors of a layer's mixer, `theirs` being its name there.
    pub fn places(&self, plan: &mut Plan, theirs: &str, layer: usize) {
        let Self {
            inner,
            state,
            conv,
            dt_rank,
            ..
        } = *self;
        let d_model = plan.d_model();
        let mut whole = |name: &str, shape: &[usize]| {
            plan.whole(
                &format!("{theirs}.{name}"),
                shape,
                &format!("layers.{layer}.mixer.{name}"),
            );
        };
        whole("in_proj.weight", &[2 * inner, d_model]);
        whole("conv1d.weight", &[inner, 1, conv]);
        whole("x_proj.weight", &[dt_rank + 2 * state, inner]);
        whole("dt_proj.weight", &[inner, dt_rank]);
        whole("dt_proj.bias", &[inner]);
        whole("A_log", &[inner, state]);
        whole("D", &[inner]);
        whole("out_proj.weight", &[d_model, inner]);
        if self.conv_bias {
            whole("conv1d.bias", &[inner]);
        }
        if self.bias {
            whole("in_proj.bias", &[2 * inner]);
            whole("out_proj.bias", &[d_model]);
        }
    }
}

/// state-spaces' own format (`mamba_ssm`, `modules/mamba_simple.py`).
fn read_state_spaces(config: &Config) -> Result<Plan> {
    let read = [
        "d_state",
        "d_conv",
        "expand",
        "dt_rank",
        "bias",
        "conv_bias",
    ];
    config.expect_keys("ssm_cfg", &[&read[..], &SSM_HARMLESS].concat())?;
    config.expect_word("ssm_cfg.layer", &["Mamba1"])?;
    let mut plan = blocks("mamba", config)?.plan;
    let d_model = plan.d_model();
    let expand = config.size_or("ssm_cfg.expand", 2)?;
    let automatic = config.expect_word("ssm_cfg.dt_rank", &["auto"]).is_ok();
    let sizes = Sizes {
        inner: expand * d_model,
        state: config.size_or("ssm_cfg.d_state", 16)?,
        conv: config.size_or("ssm_cfg.d_conv", 4)?,
        dt_rank: match automatic {
            true => d_model.div_ceil(16),
            false => config.size("ssm_cfg.dt_rank")?,
        },
        bias: config.boolean_or("ssm_cfg.bias", false)?,
        conv_bias: config.boolean_or("ssm_cfg.conv_bias", true)?,
    };
    for (option, size) in [
        ("state", sizes.state),
        ("expand", expand),
        ("conv", sizes.conv),
        ("dt_rank", sizes.dt_rank),
    ] {
        plan.option_of(option, "ssm_cfg", size);
    }
    plan.option_of("bias", "ssm_cfg", sizes.bias);
    plan.option_of("conv_bias", "ssm_cfg", sizes.conv_bias);
    for layer in 0..plan.layers() {
        sizes.places(&mut plan, &mixer(layer), layer);
    }
    Ok(plan)
}
