//! Jamba checkpoints in the Hugging Face layout: names and options only.

use longhaul_mamba::checkpoint::Sizes as Mamba;
use longhaul_plugin_kit::Result;
use longhaul_plugin_kit::checkpoint::{Config, Plan, Rotary};
use longhaul_transformer::checkpoint::Sizes as Attention;

/// Reads a config.
///
/// # Errors
/// A key or value that is not honoured, such as layers with experts.
pub fn read(config: &Config) -> Result<Plan> {
    config.expect_word("hidden_act", &["silu", "swish"])?;
    let mut plan = Plan::new("jamba", config)?;
    let (d_model, layers) = (plan.d_model(), plan.layers());
    refuse_experts(config, layers)?;
    let attention = Attention::read(config, Some(8))?;
    let epsilon = config.positive_or("rms_norm_eps", 1e-6)?;
    let hidden = config.size("intermediate_size")?;
    let attended = of_period(config, "attn_layer_period", 8, "attn_layer_offset", 4)?;
    let kinds = (0..layers).map(|layer| match attended(layer) {
        true => "attention",
        false => "mamba",
    });
    let kinds: Vec<&str> = kinds.collect();
    plan.option_of(
        "pattern",
        "attn_layer_period, attn_layer_offset",
        kinds.join("+"),
    );
    let mamba = mamba(config, &mut plan)?;
    // No positions, so nothing is rotated.
    attention.options(&mut plan, "attention.", Rotary::plain(10_000.0, 1.0));
    for option in ["mamba.inner_norm_epsilon", "norm_epsilon"] {
        plan.option_of(option, "rms_norm_eps", epsilon);
    }
    plan.option("norm", "rmsnorm");
    plan.option("mlp", "gated");
    plan.option_of("mlp_hidden", "intermediate_size", hidden);
    plan.ends(config, "model.embed_tokens.weight", "lm_head.weight", false)?;
    plan.padding(config, Some(0))?;
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
            attention.projections(&mut plan, &format!("{theirs}.self_attn"), layer, false);
        } else {
            let theirs = format!("{theirs}.mamba");
            mamba.places(&mut plan, &theirs, layer);
            for (norm, width) in [
                ("dt", mamba.dt_rank),
                ("b", mamba.state),
                ("c", mamba.state),
            ] {
                plan.whole(
                    &format!("{theirs}.{norm}_layernorm.weight"),
                    &[width],
                    &format!("layers.{layer}.mixer.{norm}_norm.weight"),
                );
            }
        }
        plan.gated_mlp(&format!("{theirs}.feed_forward"), layer, hidden, false);
    }
    Ok(plan)
}

/// Which layers stand at an offset of a period.
fn of_period(
    config: &Config,
    period: &str,
    usual_period: usize,
    offset: &str,
    usual_offset: usize,
) -> Result<impl Fn(usize) -> bool> {
    let every = config.size_or(period, usual_period)?;
    let at = config.float_or(offset, usual_offset as f64)?;
    let fits = (0.0..every as f64).contains(&at) && at.fract() == 0.0;
    config.expect(
        offset,
        fits,
        &format!("a whole number below {period}, {every}"),
    )?;
    Ok(move |layer: usize| layer % every == at as usize)
}

/// Refuses layers whose MLP is a mixture of experts.
fn refuse_experts(config: &Config, layers: usize) -> Result<()> {
    let experts = config.size_or("num_experts", 16)?;
    let has_experts = of_period(config, "expert_layer_period", 2, "expert_layer_offset", 1)?;
    let first = (0..layers).find(|&layer| has_experts(layer));
    let Some(first) = first.filter(|_| experts > 1) else {
        return Ok(());
    };
    let expected =
        format!("1: layer {first} would be a mixture of experts, which is not computed here");
    config.expect("num_experts", false, &expected)
}

/// Reads the sizes of the Mamba layers and sets their options.
fn mamba(config: &Config, plan: &mut Plan) -> Result<Mamba> {
    let d_model = plan.d_model();
    let expand = config.size_or("mamba_expand", 2)?;
    let automatic = config.expect_word("mamba_dt_rank", &["auto"]).is_ok();
    let sizes = Mamba {
        inner: expand * d_model,
        state: config.size_or("mamba_d_state", 16)?,
        conv: config.size_or("mamba_d_conv", 4)?,
        dt_rank: match automatic {
            true => d_model.div_ceil(16),
            false => config.size("mamba_dt_rank")?,
        },
        bias: config.boolean_or("mamba_proj_bias", false)?,
        conv_bias: config.boolean_or("mamba_conv_bias", true)?,
    };
    for (option, key, size) in [
        ("state", "mamba_d_state", sizes.state),
        ("expand", "mamba_expand", expand),
        ("conv", "mamba_d_conv", sizes.conv),
        ("dt_rank", "mamba_dt_rank", sizes.dt_rank),
    ] {
        plan.option_of(&format!("mamba.{option}"), key, size);
    }
    plan.option_of("mamba.bias", "mamba_proj_bias", sizes.bias);
    plan.option_of("mamba.conv_bias", "mamba_conv_bias", sizes.conv_bias);
    Ok(sizes)
}
