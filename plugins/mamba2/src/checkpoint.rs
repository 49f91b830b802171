//! Mamba-2 checkpoints in the Hugging Face layout, and in state-spaces' own: names and options only.

use longhaul_plugin_kit::Result;
use longhaul_plugin_kit::checkpoint::state_spaces::{HARMLESS, SSM_HARMLESS, blocks, mixer};
use longhaul_plugin_kit::checkpoint::{Config, Format, Plan};

/// The checkpoints this plugin reads.
pub const FORMATS: &[Format] = &[
    Format {
        model_type: "mamba2",
        harmless: &[
            "chunk_size",
            "rescale_prenorm_residual",
            "residual_in_fp32",
            "time_step_floor",
            "time_step_max",
            "time_step_min",
            "time_step_rank",
        ],
        read,
    },
    Format {
        model_type: "mamba_ssm-mamba2",
        harmless: HARMLESS,
        read: read_state_spaces,
    },
];

/// What a format calls the sizes of a Mamba-2 layer.
pub struct Keys {
    /// [`Sizes::heads`].
    pub heads: &'static str,
    /// [`Sizes::head_dim`].
    pub head_dim: &'static str,
    /// [`Sizes::state`].
    pub state: &'static str,
    /// [`Sizes::groups`].
    pub groups: &'static str,
    /// [`Sizes::expand`].
    pub expand: &'static str,
    /// [`Sizes::conv`].
    pub conv: &'static str,
    /// [`Sizes::bias`].
    pub bias: &'static str,
    /// [`Sizes::conv_bias`].
    pub conv_bias: &'static str,
    /// [`Sizes::epsilon`].
    pub epsilon: &'static str,
}

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
    /// Whether that norm comes before its gate.
    pub norm_before_gate: bool,
}

impl Sizes {
    /// Reads the sizes; `head_dim` is that of a config which does not state it, `groups` that of one without
    /// the key.
    ///
    /// # Errors
    /// A size that is absent or wrong; heads that do not fill the inner width, or groups the heads.
    pub fn read(
        config: &Config,
        keys: &Keys,
        head_dim: Option<usize>,
        groups: usize,
    ) -> Result<Self> {
        let inner = config.size_or(keys.expand, 2)? * config.size("hidden_size")?;
        let sizes = Self {
            heads: config.size(keys.heads)?,
            head_dim: head_dim.map_or_else(|| config.size(keys.head_dim), Ok)?,
            state: config.size(keys.state)?,
            groups: config.size_or(keys.groups, groups)?,
            expand: config.size_or(keys.expand, 2)?,
            conv: config.size_or(keys.conv, 4)?,
            bias: config.boolean_or(keys.bias, false)?,
            conv_bias: config.boolean_or(keys.conv_bias, true)?,
            epsilon: config.positive_or(keys.epsilon, 1e-5)?,
            norm_before_gate: false,
        };
        config.expect(
            keys.heads,
            sizes.heads * sizes.head_dim == inner,
            &format!(
                "{} times hidden_size over {}: heads of {} channels that make the inner width {inner}",
                keys.expand, keys.head_dim, sizes.head_dim
            ),
        )?;
        let divides = sizes.heads.is_multiple_of(sizes.groups);
        config.expect(
            keys.groups,
            divides,
            &format!("a divisor of {}, {}", keys.heads, sizes.heads),
        )?;
        Ok(sizes)
    }

    /// Sets the options, each under `prefix`.
    pub fn options(&self, plan: &mut Plan, prefix: &str, keys: &Keys) {
        for (option, key, size) in [
            ("state", keys.state, self.state),
            ("head_dim", keys.head_dim, self.head_dim),
            ("groups", keys.groups, self.groups),
            ("expand", keys.expand, self.expand),
            ("conv", keys.conv, self.conv),
        ] {
            plan.option_of(&format!("{prefix}{option}"), key, size);
        }
        plan.option_of(&format!("{prefix}bias"), keys.bias, self.bias);
        plan.option_of(
            &format!("{prefix}conv_bias"),
            keys.conv_bias,
            self.conv_bias,
        );
        plan.option_of(
            &format!("{prefix}norm_gate_epsilon"),
            keys.epsilon,
            self.epsilon,
        );
        if self.norm_before_gate {
            let option = format!("{prefix}norm_before_gate");
            plan.option_of(&option, "ssm_cfg", true);
        }
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

/// Keys of Mamba-2's own format.
const KEYS: Keys = Keys {
    heads: "num_heads",
    head_dim: "head_dim",
    state: "state_size",
    groups: "n_groups",
    expand: "expand",
    conv: "conv_kernel",
    bias: "use_bias",
    conv_bias: "use_conv_bias",
    epsilon: "layer_norm_epsilon",
};

fn read(config: &Config) -> Result<Plan> {
    config.expect_word("hidden_act", &["silu", "swish"])?;
    config.expect_free_time_step()?;
    // Older configs say that the gated norm is there, as it always is.
    let normed = config.boolean_or("rms_norm", true)?;
    config.expect("rms_norm", normed, "true")?;
    let mut plan = Plan::new("mamba2", config)?;
    let sizes = Sizes::read(config, &KEYS, None, 8)?;
    sizes.options(&mut plan, "", &KEYS);
    plan.option("norm", "rmsnorm");
    plan.option_of("norm_epsilon", KEYS.epsilon, sizes.epsilon);
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

/// Keys of state-spaces' own format (`mamba_ssm`, `modules/mamba2.py`), which states no number of heads.
pub const STATE_SPACES: Keys = Keys {
    heads: "ssm_cfg.headdim",
    head_dim: "ssm_cfg.headdim",
    state: "ssm_cfg.d_state",
    groups: "ssm_cfg.ngroups",
    expand: "ssm_cfg.expand",
    conv: "ssm_cfg.d_conv",
    bias: "ssm_cfg.bias",
    conv_bias: "ssm_cfg.conv_bias",
    epsilon: "ssm_cfg",
};

impl Sizes {
    /// Reads the sizes of state-spaces' own format.
    ///
    /// # Errors
    /// A size or key that is wrong; what is not computed here.
    pub fn of_state_spaces(config: &Config, d_model: usize) -> Result<Self> {
        let keys = &STATE_SPACES;
        let read = [
            "d_state",
            "d_conv",
            "expand",
            "headdim",
            "ngroups",
            "bias",
            "conv_bias",
            "rmsnorm",
            "norm_before_gate",
            "D_has_hdim",
            "d_ssm",
        ];
        config.expect_keys("ssm_cfg", &[&read[..], &SSM_HARMLESS].concat())?;
        config.expect_word("ssm_cfg.layer", &["Mamba2"])?;
        for (key, only) in [("ssm_cfg.rmsnorm", true), ("ssm_cfg.D_has_hdim", false)] {
            let fits = config.boolean_or(key, only)? == only;
            config.expect(key, fits, &only.to_string())?;
        }
        config.expect("ssm_cfg.d_ssm", !config.has("ssm_cfg.d_ssm"), "null")?;
        let expand = config.size_or(keys.expand, 2)?;
        let head_dim = config.size_or(keys.head_dim, 64)?;
        let inner = expand * d_model;
        let divides = inner.is_multiple_of(head_dim);
        let expected = format!("a divisor of expand times d_model, {inner}");
        config.expect(keys.head_dim, divides, &expected)?;
        let heads = inner / head_dim;
        let groups = config.size_or(keys.groups, 1)?;
        let divides = heads.is_multiple_of(groups);
        config.expect(keys.groups, divides, &format!("a divisor of {heads} heads"))?;
        Ok(Self {
            heads,
            head_dim,
            state: config.size_or(keys.state, 128)?,
            groups,
            expand,
            conv: config.size_or(keys.conv, 4)?,
            bias: config.boolean_or(keys.bias, false)?,
            conv_bias: config.boolean_or(keys.conv_bias, true)?,
            epsilon: 1e-5,
            norm_before_gate: config.boolean_or("ssm_cfg.norm_before_gate", false)?,
        })
    }
}

fn read_state_spaces(config: &Config) -> Result<Plan> {
    let mut plan = blocks("mamba2", config)?.plan;
    let sizes = Sizes::of_state_spaces(config, plan.d_model())?;
    sizes.options(&mut plan, "", &STATE_SPACES);
    for layer in 0..plan.layers() {
        sizes.places(&mut plan, &mixer(layer), layer);
    }
    Ok(plan)
}
