//! RecurrentGemma checkpoints in the Hugging Face layout: names and options only.

use longhaul_plugin_kit::Result;
use longhaul_plugin_kit::checkpoint::{Config, Format, Plan};

/// The checkpoints this plugin reads.
pub const FORMATS: &[Format] = &[Format {
    model_type: "recurrent_gemma",
    read,
}];

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

fn read(config: &Config) -> Result<Plan> {
    config.expect_word("hidden_activation", &["gelu_pytorch_tanh"])?;
    let mut plan = Plan::new("griffin", config)?;
    let d_model = plan.d_model();
    let heads = config.size("num_attention_heads")?;
    let sizes = Sizes {
        d_model,
        heads,
        kv_heads: config.size_or("num_key_value_heads", heads)?,
        head_dim: config.size_or("head_dim", d_model / heads)?,
        width: config.size_or("lru_width", d_model)?,
        conv: config.size_or("conv1d_width", 4)?,
        // The config counts the gate and the other half together.
        hidden: config.size("intermediate_size")? / 2,
        qkv_bias: config.boolean_or("attention_bias", false)?,
    };
    let blocks = if config.has("block_types") {
        config.words("block_types")?
    } else {
        config.words("_block_types")?
    };
    plan.option("pattern", blocks.join("+"));
    plan.option("heads", heads);
    plan.option("kv_heads", sizes.kv_heads);
    plan.option("head_dim", sizes.head_dim);
    plan.option("lru_width", sizes.width);
    plan.option("conv", sizes.conv);
    plan.option("window", config.size_or("attention_window_size", 2048)?);
    let (base, share) = config.rotary(10_000.0, 0.5)?;
    plan.option("rope_base", base);
    plan.option("rope_share", share);
    plan.option("qkv_bias", sizes.qkv_bias);
    plan.option("norm", "rmsnorm");
    plan.option("norm_epsilon", config.float_or("rms_norm_eps", 1e-6)?);
    plan.option("mlp", "geglu");
    plan.option("mlp_bias", true);
    plan.option("mlp_hidden", sizes.hidden);
    plan.option("logit_cap", config.float_or("logits_soft_cap", 30.0)?);
    plan.option("embedding_scale", bfloat16((d_model as f32).sqrt()));
    plan.ends(config, "model.embed_tokens.weight", "lm_head.weight", true)?;
    plan.padding(config)?;
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
