//! RecurrentGemma checkpoints in the Hugging Face layout: names and options only.

use longhaul_plugin_kit::Result;
use longhaul_plugin_kit::checkpoint::{Config, Format, Plan, Rotary};

/// The checkpoints this plugin reads.
pub const FORMATS: &[Format] = &[Format {
    model_type: "recurrent_gemma",
    harmless: &["final_w_init_variance_scale", "w_init_variance_scale"],
    read,
}];

/// Rotary embedding where a config says nothing: of half a head.
const ROTARY: Rotary = Rotary::plain(10_000.0, 0.5);

/// Blocks of a config that does not list them.
const BLOCKS: &[&str] = &["recurrent", "recurrent", "attention"];

/// Sizes that the tensors' shapes follow from.
struct Sizes {
    d_model: usize,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    width: usize,
    conv: usize,
    hidden: usize,
    qkv_bias: bool,
}

impl Sizes {
    fn read(config: &Config, d_model: usize) -> Result<Self> {
        let heads = config.size("num_attention_heads")?;
        let kv_heads = config.optional_size("num_key_value_heads", None)?;
        let head_dim = config.optional_size("head_dim", None)?;
        let width = config.optional_size("lru_width", None)?.unwrap_or(d_model);
        // The gates of the recurrence are matrices a head.
        let divides =
            width.is_multiple_of(heads) && (head_dim.is_some() || d_model.is_multiple_of(heads));
        let expected = format!("a divisor of lru_width, {width}, and hidden_size, {d_model}");
        config.expect("num_attention_heads", divides, &expected)?;
        let hidden = config.size("intermediate_size")?;
        // The config counts the gate and the other half together.
        config.expect("intermediate_size", hidden.is_multiple_of(2), "even")?;
        Ok(Self {
            d_model,
            heads,
            kv_heads: kv_heads.unwrap_or(heads),
            head_dim: head_dim.unwrap_or(d_model / heads),
            width,
            conv: config.size_or("conv1d_width", 4)?,
            hidden: hidden / 2,
            qkv_bias: config.boolean_or("attention_bias", false)?,
        })
    }

    fn options(&self, plan: &mut Plan) {
        for (option, key, size) in [
            ("heads", "num_attention_heads", self.heads),
            ("kv_heads", "num_key_value_heads", self.kv_heads),
            ("head_dim", "head_dim", self.head_dim),
            ("lru_width", "lru_width", self.width),
            ("conv", "conv1d_width", self.conv),
            ("mlp_hidden", "intermediate_size", self.hidden),
        ] {
            plan.option_of(option, key, size);
        }
        plan.option_of("qkv_bias", "attention_bias", self.qkv_bias);
    }
}

/// The kinds of blocks, which repeat, and the key that lists them; older files have it with a dash before.
fn blocks(config: &Config) -> Result<(&'static str, Vec<&str>)> {
    let listed = ["block_types", "_block_types"]
        .into_iter()
        .find(|key| config.has(key));
    match listed {
        Some(key) => Ok((key, config.words(key, &["recurrent", "attention"])?)),
        None => Ok(("block_types", BLOCKS.to_vec())),
    }
}

fn read(config: &Config) -> Result<Plan> {
    let activations = ["gelu_pytorch_tanh", "gelu_python_tanh", "gelu_new"];
    config.expect_word("hidden_activation", &activations)?;
    let mut plan = Plan::new("griffin", config)?;
    let d_model = plan.d_model();
    let sizes = Sizes::read(config, d_model)?;
    sizes.options(&mut plan);
    let (key, blocks) = blocks(config)?;
    plan.option_of("pattern", key, blocks.join("+"));
    let window = config.size_or("attention_window_size", 2048)?;
    let same = config.size_or("sliding_window", window)? == window;
    config.expect(
        "sliding_window",
        same,
        &format!("attention_window_size, {window}"),
    )?;
    plan.option_of("window", "attention_window_size", window);
    let rotary = config.plain_rotary(ROTARY)?;
    plan.option_of("rope_base", "rope_theta", rotary.base);
    plan.option_of("rope_share", "partial_rotary_factor", rotary.share);
    plan.option("norm", "rmsnorm");
    let epsilon = config.positive_or("rms_norm_eps", 1e-6)?;
    plan.option_of("norm_epsilon", "rms_norm_eps", epsilon);
    plan.option("mlp", "geglu");
    plan.option("mlp_bias", true);
    let cap = config.positive_or("logits_soft_cap", 30.0)?;
    plan.option_of("logit_cap", "logits_soft_cap", cap);
    plan.option("embedding_scale", bfloat16((d_model as f32).sqrt()));
    plan.ends(config, "model.embed_tokens.weight", "lm_head.weight", true)?;
    plan.padding(config, Some(0))?;
    plan.ignore("rotary_emb.inv_freq");
    plan.one_more("model.final_norm.weight", &[d_model], "norm.weight");
    for layer in 0..plan.layers() {
        let theirs = format!("model.layers.{layer}");
        for (norm, ours) in [("temporal_pre_norm", 1), ("channel_pre_norm", 2)] {
            plan.one_more(
                &format!("{theirs}.{norm}.weight"),
                &[d_model],
                &format!("layers.{layer}.norm{ours}.weight"),
            );
        }
        if blocks[layer % blocks.len()] == "attention" {
            attention(&mut plan, &sizes, &theirs, layer);
        } else {
            recurrent(&mut plan, &sizes, &theirs, layer);
        }
        plan.gated_mlp(&format!("{theirs}.mlp_block"), layer, sizes.hidden, true);
    }
    Ok(plan)
}

/// A number rounded to bfloat16 (to nearest, ties to even), as the factor on the embedding is there.
fn bfloat16(value: f32) -> f32 {
    let bits = value.to_bits();
    let rounded = bits + 0x7fff + (bits >> 16 & 1);
    f32::from_bits(rounded & 0xffff_0000)
}

fn attention(plan: &mut Plan, sizes: &Sizes, theirs: &str, layer: usize) {
    let Sizes {
        d_model,
        heads,
        kv_heads,
        head_dim,
        ..
    } = *sizes;
    let (q, kv) = (heads * head_dim, kv_heads * head_dim);
    let theirs = format!("{theirs}.temporal_block");
    let ours = format!("layers.{layer}.mixer");
    let named = |kind: &str| {
        [("q_proj", q), ("k_proj", kv), ("v_proj", kv)]
            .map(|(name, rows)| (format!("{theirs}.{name}.{kind}"), rows))
    };
    plan.stacked(&named("weight"), d_model, &format!("{ours}.qkv.weight"));
    if sizes.qkv_bias {
        plan.joined(&named("bias"), &format!("{ours}.qkv.bias"));
    }
    plan.whole(
        &format!("{theirs}.o_proj.weight"),
        &[d_model, q],
        &format!("{ours}.out_proj.weight"),
    );
    plan.whole(
        &format!("{theirs}.o_proj.bias"),
        &[d_model],
        &format!("{ours}.out_proj.bias"),
    );
}

fn recurrent(plan: &mut Plan, sizes: &Sizes, theirs: &str, layer: usize) {
    let Sizes {
        d_model,
        heads,
        width,
        conv,
        ..
    } = *sizes;
    let block = width / heads;
    for (name, shape) in [
        ("linear_y", vec![width, d_model]),
        ("linear_x", vec![width, d_model]),
        ("linear_out", vec![d_model, width]),
        ("conv_1d", vec![width, 1, conv]),
    ] {
        for (part, shape) in [("weight", &shape[..]), ("bias", &shape[..1])] {
            plan.whole(
                &format!("{theirs}.temporal_block.{name}.{part}"),
                shape,
                &format!("layers.{layer}.mixer.{name}.{part}"),
            );
        }
    }
    for (name, ours, shape) in [
        (
            "input_gate_weight",
            "input_gate.weight",
            &[heads, block, block][..],
        ),
        ("input_gate_bias", "input_gate.bias", &[heads, block]),
        (
            "recurrent_gate_weight",
            "recurrent_gate.weight",
            &[heads, block, block],
        ),
        (
            "recurrent_gate_bias",
            "recurrent_gate.bias",
            &[heads, block],
        ),
        ("recurrent_param", "lambda", &[width]),
    ] {
        plan.whole(
            &format!("{theirs}.temporal_block.rg_lru.{name}"),
            shape,
            &format!("layers.{layer}.mixer.rg_lru.{ours}"),
        );
    }
}
