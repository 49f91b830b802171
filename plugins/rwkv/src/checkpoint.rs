//! RWKV-4 checkpoints in the Hugging Face layout: names and options only.

use longhaul_plugin_kit::Result;
use longhaul_plugin_kit::checkpoint::{Config, Format, Plan};

/// The checkpoints this plugin reads.
pub const FORMATS: &[Format] = &[Format {
    model_type: "rwkv",
    // Deeper layers are divided for half precision at inference, which is undone where it matters.
    harmless: &["rescale_every"],
    read,
}];

fn read(config: &Config) -> Result<Plan> {
    let mut plan = Plan::new("rwkv4", config)?;
    let d_model = plan.d_model();
    let hidden = config.optional_size("attention_hidden_size", None)?;
    let mlp_hidden = config.optional_size("intermediate_size", None)?;
    let hidden = hidden.unwrap_or(d_model);
    let mlp_hidden = mlp_hidden.unwrap_or(4 * d_model);
    plan.option_of("hidden", "attention_hidden_size", hidden);
    plan.option("embedding_norm", true);
    plan.option("norm", "layernorm");
    let epsilon = config.positive_or("layer_norm_epsilon", 1e-5)?;
    plan.option_of("norm_epsilon", "layer_norm_epsilon", epsilon);
    // The norm before the head has PyTorch's default, whatever the others have.
    plan.option("final_norm_epsilon", 1e-5);
    plan.option("mlp", "channel-mix");
    plan.option_of("mlp_hidden", "intermediate_size", mlp_hidden);
    plan.ends(config, "rwkv.embeddings.weight", "head.weight", false)?;
    norm(&mut plan, "rwkv.blocks.0.pre_ln", "pre_ln");
    norm(&mut plan, "rwkv.ln_out", "norm");
    for layer in 0..plan.layers() {
        let theirs = format!("rwkv.blocks.{layer}");
        for (name, ours) in [("ln1", "norm1"), ("ln2", "norm2")] {
            norm(
                &mut plan,
                &format!("{theirs}.{name}"),
                &format!("layers.{layer}.{ours}"),
            );
        }
        for (name, shape) in [
            ("time_decay", &[hidden][..]),
            ("time_first", &[hidden]),
            ("time_mix_key", &[1, 1, d_model]),
            ("time_mix_value", &[1, 1, d_model]),
            ("time_mix_receptance", &[1, 1, d_model]),
            ("key.weight", &[hidden, d_model]),
            ("value.weight", &[hidden, d_model]),
            ("receptance.weight", &[hidden, d_model]),
            ("output.weight", &[d_model, hidden]),
        ] {
            plan.whole(
                &format!("{theirs}.attention.{name}"),
                shape,
                &format!("layers.{layer}.mixer.{name}"),
            );
        }
        for (name, shape) in [
            ("time_mix_key", &[1, 1, d_model][..]),
            ("time_mix_receptance", &[1, 1, d_model]),
            ("key.weight", &[mlp_hidden, d_model]),
            ("receptance.weight", &[d_model, d_model]),
            ("value.weight", &[d_model, mlp_hidden]),
        ] {
            plan.whole(
                &format!("{theirs}.feed_forward.{name}"),
                shape,
                &format!("layers.{layer}.mlp.{name}"),
            );
        }
    }
    Ok(plan)
}

/// A LayerNorm's weight and bias.
fn norm(plan: &mut Plan, theirs: &str, ours: &str) {
    let d_model = plan.d_model();
    for part in ["weight", "bias"] {
        plan.whole(
            &format!("{theirs}.{part}"),
            &[d_model],
            &format!("{ours}.{part}"),
        );
    }
}
