//! Configs and names of state-spaces' own software (`mamba_ssm`, `models/mixer_seq_simple.py`): what its four kinds of
//! model have in common.

use longhaul_plugin_api::author::Result;

use super::{Config, Plan};

/// Keys of its configs that say nothing about what is computed.
pub const HARMLESS: &[&str] = &["fused_add_norm", "residual_in_fp32"];

/// Keys inside `ssm_cfg` that only set starting values or how it runs.
pub const SSM_HARMLESS: [&str; 14] = [
    "layer",
    "A_init_range",
    "chunk_size",
    "conv_init",
    "dt_init",
    "dt_init_floor",
    "dt_max",
    "dt_min",
    "dt_scale",
    "use_fast_path",
    "use_mem_eff_path",
    "device",
    "dtype",
    "sequence_parallel",
];

/// Layers of a model, and its plan with all but the mixers.
pub struct Blocks {
    /// Sizes, options and places so far.
    pub plan: Plan,
    /// Layers that are attention, ascending.
    pub attended: Vec<usize>,
}

/// Reads what every kind has: sizes, norms, embedding, MLPs.
///
/// # Errors
/// A key that is absent or wrong.
pub fn blocks(architecture: &str, config: &Config) -> Result<Blocks> {
    let mut plan = Plan::by_keys(architecture, config, "d_model", "n_layer")?;
    let multiple = config.size_or("pad_vocab_size_multiple", 8)?;
    plan.pad_vocab(multiple);
    let rms = config.boolean_or("rms_norm", true)?;
    config.expect("rms_norm", rms, "true")?;
    plan.option("norm", "rmsnorm");
    plan.option("norm_epsilon", 1e-5);
    let (embedding, head) = ("backbone.embedding.weight", "lm_head.weight");
    // The host unties by the first key where a file's head has values of its own.
    let keys = ["tie_word_embeddings", "tie_embeddings"];
    let key = keys.into_iter().find(|key| config.has(key));
    plan.ends_by_key(config, (embedding, head), key.unwrap_or(keys[1]), true)?;
    let d_model = plan.d_model();
    plan.whole("backbone.norm_f.weight", &[d_model], "norm.weight");
    // Zero, absent and null are no MLP.
    let hidden = match config.float_or("d_intermediate", 0.0).ok() {
        Some(0.0) => 0,
        _ => config.optional_size("d_intermediate", None)?.unwrap_or(0),
    };
    // GatedMLP rounds its width up.
    let hidden = hidden.next_multiple_of(128);
    plan.option("mlp", if hidden > 0 { "gated" } else { "none" });
    if hidden > 0 {
        plan.option_of("mlp_hidden", "d_intermediate", hidden);
    }
    for layer in 0..plan.layers() {
        let theirs = format!("backbone.layers.{layer}");
        let ours = format!("layers.{layer}");
        let norm = format!("{theirs}.norm.weight");
        plan.whole(&norm, &[d_model], &format!("{ours}.norm1.weight"));
        if hidden > 0 {
            let norm = format!("{theirs}.norm2.weight");
            plan.whole(&norm, &[d_model], &format!("{ours}.norm2.weight"));
            let halves = ["up", "gate"].map(|half| (format!("{ours}.mlp.{half}.weight"), hidden));
            plan.unstacked(&format!("{theirs}.mlp.fc1.weight"), d_model, &halves);
            plan.whole(
                &format!("{theirs}.mlp.fc2.weight"),
                &[d_model, hidden],
                &format!("{ours}.mlp.down.weight"),
            );
        }
    }
    let mut attended = config.indices("attn_layer_idx", plan.layers(), "n_layer")?;
    attended.sort_unstable();
    attended.dedup();
    Ok(Blocks { plan, attended })
}

/// The name of a layer's mixer.
pub fn mixer(layer: usize) -> String {
    format!("backbone.layers.{layer}.mixer")
}
