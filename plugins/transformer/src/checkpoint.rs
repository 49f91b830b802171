//! Llama and Mistral checkpoints in the Hugging Face layout, and attention in state-spaces' own: names and options
//! only.

use longhaul_plugin_kit::Result;
use longhaul_plugin_kit::checkpoint::state_spaces::{HARMLESS, blocks as state_spaces, mixer};
use longhaul_plugin_kit::checkpoint::{Config, Format, Plan, Rotary};
use longhaul_plugin_kit::ops::rotary_scaling::{Scaling, Turns};

/// The checkpoints this plugin reads.
pub const FORMATS: &[Format] = &[
    Format {
        model_type: "llama",
        harmless: &[],
        read: read_llama,
    },
    Format {
        model_type: "mistral",
        harmless: &[],
        read: read_mistral,
    },
    Format {
        model_type: "mamba_ssm-transformer",
        harmless: HARMLESS,
        read: read_state_spaces,
    },
];

/// Rotary embedding where a config says nothing: of the whole head.
const ROTARY: Rotary = Rotary::plain(10_000.0, 1.0);

/// Sizes of an attention as a config states them.
pub struct Sizes {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
}

impl Sizes {
    /// Reads the keys that the Llama family of configs shares. `kv_heads` is the number of key and value heads
    /// of a config without the key; null is as many as query heads.
    ///
    /// # Errors
    /// If one is absent or wrong.
    pub fn read(config: &Config, kv_heads: Option<usize>) -> Result<Self> {
        let heads = config.size("num_attention_heads")?;
        let d_model = config.size("hidden_size")?;
        let kv_heads = config.optional_size("num_key_value_heads", kv_heads)?;
        let kv_heads = kv_heads.unwrap_or(heads);
        let divides = heads.is_multiple_of(kv_heads);
        config.expect(
            "num_key_value_heads",
            divides,
            &format!("a divisor of num_attention_heads, {heads}"),
        )?;
        let head_dim = match config.optional_size("head_dim", None)? {
            Some(head_dim) => head_dim,
            None => {
                let expected = format!("a divisor of hidden_size, {d_model}");
                let divides = d_model.is_multiple_of(heads);
                config.expect("num_attention_heads", divides, &expected)?;
                d_model / heads
            }
        };
        Ok(Self {
            heads,
            kv_heads,
            head_dim,
        })
    }

    /// Sets the options, each under `prefix`.
    pub fn options(&self, plan: &mut Plan, prefix: &str, rotary: Rotary) {
        for (option, key, size) in [
            ("heads", "num_attention_heads", self.heads),
            ("kv_heads", "num_key_value_heads", self.kv_heads),
            ("head_dim", "head_dim", self.head_dim),
        ] {
            plan.option_of(&format!("{prefix}{option}"), key, size);
        }
        for (option, key, value) in [
            ("rope_base", "rope_theta", rotary.base),
            ("rope_share", "partial_rotary_factor", rotary.share),
        ] {
            plan.option_of(&format!("{prefix}{option}"), key, value);
        }
        for (option, value) in scaling_options(rotary.scaling) {
            plan.option_of(&format!("{prefix}{option}"), scaling_key(option), value);
        }
        plan.ignore("rotary_emb.inv_freq");
    }

    /// The four projections of layer `layer`, from `theirs` followed by `q_proj` and so on.
    pub fn projections(&self, plan: &mut Plan, theirs: &str, layer: usize, bias: bool) {
        let d_model = plan.d_model();
        let (q, kv) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        let named = |kind: &str| {
            [("q_proj", q), ("k_proj", kv), ("v_proj", kv)]
                .map(|(name, rows)| (format!("{theirs}.{name}.{kind}"), rows))
        };
        let ours = format!("layers.{layer}.mixer");
        plan.stacked(&named("weight"), d_model, &format!("{ours}.qkv.weight"));
        plan.whole(
            &format!("{theirs}.o_proj.weight"),
            &[d_model, q],
            &format!("{ours}.out_proj.weight"),
        );
        if bias {
            plan.joined(&named("bias"), &format!("{ours}.qkv.bias"));
            plan.whole(
                &format!("{theirs}.o_proj.bias"),
                &[d_model],
                &format!("{ours}.out_proj.bias"),
            );
        }
    }
}

/// The keys of the config's object of rotary parameters that an option of its scaling is read from.
fn scaling_key(option: &str) -> &'static str {
    match option {
        "rope_factor" => "factor",
        "rope_original_length" => "original_max_position_embeddings",
        "rope_beta_fast" => "beta_fast, high_freq_factor",
        "rope_beta_slow" => "beta_slow, low_freq_factor",
        "rope_attention_factor" => "attention_factor, mscale, mscale_all_dim",
        _ => "rope_type",
    }
}

/// A scaling in options of the architecture.
fn scaling_options(scaling: Scaling) -> Vec<(&'static str, String)> {
    let ends = |turns: Turns| {
        [
            ("rope_original_length", turns.original_length.to_string()),
            ("rope_beta_fast", turns.fast.to_string()),
            ("rope_beta_slow", turns.slow.to_string()),
        ]
    };
    let named = |kind: &str, factor: f64| {
        vec![
            ("rope_scaling", kind.to_owned()),
            ("rope_factor", factor.to_string()),
        ]
    };
    match scaling {
        Scaling::None => Vec::new(),
        Scaling::Linear { factor } => named("linear", factor),
        Scaling::Llama3 { factor, turns } => {
            let mut options = named("llama3", factor);
            options.extend(ends(turns));
            options
        }
        Scaling::Yarn {
            factor,
            turns,
            truncate,
            attention,
        } => {
            let mut options = named("yarn", factor);
            options.extend(ends(turns));
            options.push(("rope_truncate", truncate.to_string()));
            options.push(("rope_attention_factor", attention.to_string()));
            options
        }
    }
}

fn read_llama(config: &Config) -> Result<Plan> {
    let sizes = Sizes::read(config, None)?;
    let mut plan = Plan::new("transformer", config)?;
    config.expect_layers("full_attention", plan.layers())?;
    let bias = config.boolean_or("attention_bias", false)?;
    let mlp_bias = config.boolean_or("mlp_bias", false)?;
    plan.option_of("bias", "attention_bias", bias);
    plan.option_of("mlp_bias", "mlp_bias", mlp_bias);
    blocks(plan, config, &sizes, bias, mlp_bias)
}

fn read_mistral(config: &Config) -> Result<Plan> {
    let sizes = Sizes::read(config, Some(8))?;
    let mut plan = Plan::new("transformer", config)?;
    // A config without the key has the window of the first Mistral; null is none.
    let window = config.optional_size("sliding_window", Some(4096))?;
    // Software disagrees on what this key does beside a window, so it must agree with it.
    let used = config.boolean_or("use_sliding_window", window.is_some())?;
    let agrees = used || window.is_none();
    config.expect(
        "use_sliding_window",
        agrees,
        "true or absent where sliding_window is not null",
    )?;
    let kind = match window {
        Some(_) => "sliding_attention",
        None => "full_attention",
    };
    config.expect_layers(kind, plan.layers())?;
    if let Some(window) = window {
        plan.option_of("window", "sliding_window", window);
    }
    blocks(plan, config, &sizes, false, false)
}

/// What both have: embedding, blocks, final norm and head.
fn blocks(
    mut plan: Plan,
    config: &Config,
    sizes: &Sizes,
    bias: bool,
    mlp_bias: bool,
) -> Result<Plan> {
    config.expect_word("hidden_act", &["silu", "swish"])?;
    sizes.options(&mut plan, "", config.rotary_of_share(ROTARY)?);
    let hidden = config.size("intermediate_size")?;
    plan.option("mlp", "gated");
    plan.option_of("mlp_hidden", "intermediate_size", hidden);
    plan.option("norm", "rmsnorm");
    let epsilon = config.positive_or("rms_norm_eps", 1e-6)?;
    plan.option_of("norm_epsilon", "rms_norm_eps", epsilon);
    plan.ends(config, "model.embed_tokens.weight", "lm_head.weight", false)?;
    plan.padding(config, None)?;
    let d_model = plan.d_model();
    plan.whole("model.norm.weight", &[d_model], "norm.weight");
    for layer in 0..plan.layers() {
        let theirs = format!("model.layers.{layer}");
        for (norm, ours) in [("input_layernorm", 1), ("post_attention_layernorm", 2)] {
            plan.whole(
                &format!("{theirs}.{norm}.weight"),
                &[d_model],
                &format!("layers.{layer}.norm{ours}.weight"),
            );
        }
        sizes.projections(&mut plan, &format!("{theirs}.self_attn"), layer, bias);
        plan.gated_mlp(&format!("{theirs}.mlp"), layer, hidden, mlp_bias);
    }
    Ok(plan)
}

/// Attention of state-spaces' own format (`mamba_ssm`, `modules/mha.py`).
pub struct StateSpaces {
    sizes: Sizes,
    rotary: Rotary,
    /// Taps of the convolution over queries, keys and values; 0 is none.
    conv: usize,
    bias: bool,
}

impl StateSpaces {
    /// Reads `attn_cfg`.
    ///
    /// # Errors
    /// A size or key that is wrong; what is not computed here.
    pub fn read(config: &Config, d_model: usize) -> Result<Self> {
        let read = [
            "causal",
            "d_conv",
            "head_dim",
            "num_heads",
            "num_heads_kv",
            "mlp_dim",
            "out_proj_bias",
            "qkv_proj_bias",
            "rotary_emb_base",
            "rotary_emb_dim",
            "rotary_emb_interleaved",
            "softmax_scale",
        ];
        config.expect_keys("attn_cfg", &read)?;
        let place = |key: &str| format!("attn_cfg.{key}");
        let heads = config.size(&place("num_heads"))?;
        let kv_heads = config.optional_size(&place("num_heads_kv"), None)?;
        let kv_heads = kv_heads.unwrap_or(heads);
        let divides = heads.is_multiple_of(kv_heads);
        config.expect(&place("num_heads_kv"), divides, "a divisor of num_heads")?;
        let head_dim = match config.optional_size(&place("head_dim"), None)? {
            Some(head_dim) => head_dim,
            None => {
                let divides = d_model.is_multiple_of(heads);
                config.expect(&place("num_heads"), divides, "a divisor of d_model")?;
                d_model / heads
            }
        };
        let yes = |key: &str, absent: bool| config.boolean_or(&place(key), absent);
        config.expect(&place("causal"), yes("causal", false)?, "true")?;
        let interleaved = yes("rotary_emb_interleaved", false)?;
        config.expect(&place("rotary_emb_interleaved"), !interleaved, "false")?;
        for key in ["mlp_dim", "softmax_scale"] {
            let value = config.optional_number(&place(key))?;
            let fits = value.is_none_or(|value| value == 0.0);
            config.expect(&place(key), fits, "absent")?;
        }
        let bias = yes("qkv_proj_bias", true)?;
        let agrees = yes("out_proj_bias", true)? == bias;
        config.expect(&place("out_proj_bias"), agrees, "the same as qkv_proj_bias")?;
        let rotated = config
            .optional_number(&place("rotary_emb_dim"))?
            .unwrap_or(0.0);
        let fits = rotated.fract() == 0.0 && rotated >= 0.0 && rotated <= head_dim as f64;
        let expected = format!("an even number up to the head's size, `head_dim`, {head_dim}");
        config.expect(
            &place("rotary_emb_dim"),
            fits && rotated % 2.0 == 0.0,
            &expected,
        )?;
        let conv = config.optional_number(&place("d_conv"))?.unwrap_or(0.0);
        let fits = conv.fract() == 0.0 && (0.0..=64.0).contains(&conv);
        config.expect(&place("d_conv"), fits, "a whole number to 64")?;
        let base = config.positive_or(&place("rotary_emb_base"), 10_000.0)?;
        Ok(Self {
            sizes: Sizes {
                heads,
                kv_heads,
                head_dim,
            },
            rotary: Rotary::plain(base, rotated / head_dim as f64),
            conv: conv as usize,
            bias,
        })
    }

    /// Sets the options, each under `prefix`.
    pub fn options(&self, plan: &mut Plan, prefix: &str) {
        let mut put = |name: &str, value: String| {
            plan.option_of(&format!("{prefix}{name}"), "attn_cfg", value);
        };
        put("heads", self.sizes.heads.to_string());
        put("kv_heads", self.sizes.kv_heads.to_string());
        put("head_dim", self.sizes.head_dim.to_string());
        put("rope_base", self.rotary.base.to_string());
        put("rope_share", self.rotary.share.to_string());
        put("conv", self.conv.to_string());
        put("bias", self.bias.to_string());
        plan.ignore("rotary_emb.inv_freq");
    }

    /// The tensors of layer `layer`.
    pub fn places(&self, plan: &mut Plan, layer: usize) {
        let Sizes {
            heads,
            kv_heads,
            head_dim,
        } = self.sizes;
        let (theirs, ours) = (mixer(layer), format!("layers.{layer}.mixer"));
        let d_model = plan.d_model();
        let (q, all) = (heads * head_dim, (heads + 2 * kv_heads) * head_dim);
        let mut whole = |name: &str, own: &str, shape: &[usize]| {
            plan.whole(&format!("{theirs}.{name}"), shape, &format!("{ours}.{own}"));
        };
        whole("in_proj.weight", "qkv.weight", &[all, d_model]);
        whole("out_proj.weight", "out_proj.weight", &[d_model, q]);
        if self.bias {
            whole("in_proj.bias", "qkv.bias", &[all]);
            whole("out_proj.bias", "out_proj.bias", &[d_model]);
        }
        if self.conv > 0 {
            whole("conv1d.weight", "conv1d.weight", &[all, 1, self.conv]);
            whole("conv1d.bias", "conv1d.bias", &[all]);
        }
    }
}

/// A config whose every layer is attention, so that `ssm_cfg` says nothing.
fn read_state_spaces(config: &Config) -> Result<Plan> {
    let mut plan = state_spaces("transformer", config)?.plan;
    config.has("ssm_cfg");
    let attention = StateSpaces::read(config, plan.d_model())?;
    attention.options(&mut plan, "");
    for layer in 0..plan.layers() {
        attention.places(&mut plan, layer);
    }
    Ok(plan)
}
