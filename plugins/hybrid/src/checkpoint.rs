//! Bamba checkpoints (Mamba-2 and attention in one model) in the Hugging Face layout: names and
//! options only.

use longhaul_mamba2::checkpoint::Sizes as Mamba2;
use longhaul_plugin_kit::Result;
use longhaul_plugin_kit::checkpoint::{Config, Format, Plan};
use longhaul_transformer::checkpoint::Sizes as Attention;

/// The checkpoints this plugin reads.
pub const FORMATS: &[Format] = &[Format {
    model_type: "bamba",
    read,
}];

fn read(config: &Config) -> Result<Plan> {
    config.expect_word("hidden_act", &["silu"])?;
    config.expect_free_time_step()?;
    let mut plan = Plan::new("hybrid", config)?;
    let epsilon = config.float_or("rms_norm_eps", 1e-5)?;
    let attention = Attention::read(config)?;
    let mamba2 = Mamba2 {
        heads: config.size("mamba_n_heads")?,
        head_dim: head_dim(config)?,
        state: config.size("mamba_d_state")?,
        groups: config.size_or("mamba_n_groups", 1)?,
        expand: config.size_or("mamba_expand", 2)?,
        conv: config.size_or("mamba_d_conv", 4)?,
        bias: config.boolean_or("mamba_proj_bias", false)?,
        conv_bias: config.boolean_or("mamba_conv_bias", true)?,
        epsilon,
    };
    let mamba2 = mamba2.check(plan.d_model())?;
    let bias = config.boolean_or("attention_bias", false)?;
    let mlp_bias = config.boolean_or("mlp_bias", false)?;
    let hidden = config.size("intermediate_size")?;
    let attended = if config.has("attn_layer_indices") {
        config.sizes("attn_layer_indices")?
    } else {
        Vec::new()
    };
    let kinds: Vec<&str> = (0..plan.layers())
        .map(|layer| {
            if attended.contains(&layer) {
                "attention"
            } else {
                "mamba2"
            }
        })
        .collect();
    plan.option("pattern", kinds.join("+"));
    mamba2.options(&mut plan, "mamba2.");
    attention.options(&mut plan, "attention.", config, 0.5)?;
    plan.option("attention.bias", bias);
    plan.option("norm", "rmsnorm");
    plan.option("norm_epsilon", epsilon);
    plan.option("mlp", "gated");
    plan.option("mlp_bias", mlp_bias);
    plan.option("mlp_hidden", hidden);
    plan.ends(config, "model.embed_tokens.weight", "lm_head.weight", false)?;
    plan.padding(config)?;
    let d_model = plan.d_model();
    plan.whole("model.final_layernorm.weight", &[d_model], "norm.weight");
    for (layer, kind) in kinds.iter().enumerate() {
        let theirs = format!("model.layers.{layer}");
        for (norm, ours) in [("input_layernorm", 1), ("pre_ff_layernorm", 2)] {
            plan.whole(
                &format!("{theirs}.{norm}.weight"),
                &[d_model],
                &format!("layers.{layer}.norm{ours}.weight"),
            );
        }
        if *kind == "attention" {
            attention.projections(&mut plan, &format!("{theirs}.self_attn"), layer, bias);
        } else {
            mamba2.places(&mut plan, &format!("{theirs}.mamba"), layer);
        }
        plan.gated_mlp(&format!("{theirs}.feed_forward"), layer, hidden, mlp_bias);
    }
    Ok(plan)
}

/// `mamba_d_head`, which may be the word auto.
fn head_dim(config: &Config) -> Result<usize> {
    if config.expect_word("mamba_d_head", &["auto"]).is_ok() {
        let inner = config.size_or("mamba_expand", 2)? * config.size("hidden_size")?;
        return Ok(inner / config.size("mamba_n_heads")?);
    }
    config.size("mamba_d_head")
}
