//! The checkpoints read here; of those of Mamba-2 and attention in one model, Bamba in the Hugging Face layout and
//! state-spaces' own, names and options.

use longhaul_mamba2::checkpoint::{Keys, STATE_SPACES, Sizes as Mamba2};
use longhaul_plugin_kit::Result;
use longhaul_plugin_kit::checkpoint::state_spaces::{Blocks, HARMLESS, blocks, mixer};
use longhaul_plugin_kit::checkpoint::{Config, Format, Plan, Rotary};
use longhaul_transformer::checkpoint::{Sizes as Attention, StateSpaces};

use crate::{jamba, qwen3_next};

/// The checkpoints this plugin reads.
pub const FORMATS: &[Format] = &[
    Format {
        model_type: "bamba",
        harmless: &[
            "mamba_chunk_size",
            "num_logits_to_keep",
            "z_loss_coefficient",
        ],
        read,
    },
    Format {
        model_type: "jamba",
        // Of experts, which no layer may have, of training, or of kernels.
        harmless: &[
            "num_experts_per_tok",
            "num_logits_to_keep",
            "output_router_logits",
            "router_aux_loss_coef",
            "use_associative_scan",
            "use_mamba_kernels",
            "use_mambapy",
        ],
        read: jamba::read,
    },
    Format {
        model_type: "qwen3_next",
        // All of experts, which no layer may have, or of training.
        harmless: &[
            "moe_intermediate_size",
            "norm_topk_prob",
            "num_experts_per_tok",
            "output_router_logits",
            "router_aux_loss_coef",
            "shared_expert_intermediate_size",
        ],
        read: qwen3_next::read,
    },
    Format {
        model_type: "mamba_ssm-hybrid",
        harmless: HARMLESS,
        read: read_state_spaces,
    },
];

/// Rotary embedding where a config says nothing: of half a head.
const ROTARY: Rotary = Rotary::plain(10_000.0, 0.5);

fn read(config: &Config) -> Result<Plan> {
    config.expect_word("hidden_act", &["silu", "swish"])?;
    config.expect_free_time_step()?;
    let mut plan = Plan::new("hybrid", config)?;
    // The class sets its share over this key; `rope_parameters` may have another.
    let share = config.float_or("partial_rotary_factor", ROTARY.share)?;
    config.expect("partial_rotary_factor", share == ROTARY.share, "0.5")?;
    let attention = Attention::read(config, Some(8))?;
    let mamba2 = mamba2(config, plan.d_model())?;
    let bias = config.boolean_or("attention_bias", false)?;
    let mlp_bias = config.boolean_or("mlp_bias", false)?;
    let hidden = config.size("intermediate_size")?;
    let attended = config.indices("attn_layer_indices", plan.layers(), "num_hidden_layers")?;
    let kinds = kinds(&attended, plan.layers());
    plan.option_of("pattern", "attn_layer_indices", kinds.join("+"));
    mamba2.options(&mut plan, "mamba2.", &MAMBA2_KEYS);
    attention.options(&mut plan, "attention.", config.rotary(ROTARY)?);
    plan.option_of("attention.bias", "attention_bias", bias);
    plan.option("norm", "rmsnorm");
    plan.option_of("norm_epsilon", "rms_norm_eps", mamba2.epsilon);
    plan.option("mlp", "gated");
    plan.option_of("mlp_bias", "mlp_bias", mlp_bias);
    plan.option_of("mlp_hidden", "intermediate_size", hidden);
    plan.ends(config, "model.embed_tokens.weight", "lm_head.weight", false)?;
    plan.padding(config, Some(0))?;
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

/// Keys of the Mamba-2 layers.
const MAMBA2_KEYS: Keys = Keys {
    heads: "mamba_n_heads",
    head_dim: "mamba_d_head",
    state: "mamba_d_state",
    groups: "mamba_n_groups",
    expand: "mamba_expand",
    conv: "mamba_d_conv",
    bias: "mamba_proj_bias",
    conv_bias: "mamba_conv_bias",
    epsilon: "rms_norm_eps",
};

fn mamba2(config: &Config, d_model: usize) -> Result<Mamba2> {
    let automatic = config.expect_word(MAMBA2_KEYS.head_dim, &["auto"]).is_ok();
    let heads = config.size(MAMBA2_KEYS.heads)?;
    let inner = config.size_or(MAMBA2_KEYS.expand, 2)? * d_model;
    let head_dim = automatic.then_some(inner / heads);
    Mamba2::read(config, &MAMBA2_KEYS, head_dim, 1)
}

/// The kind of every layer.
fn kinds(attended: &[usize], layers: usize) -> Vec<&'static str> {
    let kind = |layer: usize| match attended.contains(&layer) {
        true => "attention",
        false => "mamba2",
    };
    (0..layers).map(kind).collect()
}

/// state-spaces' own format, such as its mamba2attn.
fn read_state_spaces(config: &Config) -> Result<Plan> {
    let Blocks { mut plan, attended } = blocks("hybrid", config)?;
    let kinds = kinds(&attended, plan.layers());
    plan.option_of("pattern", "attn_layer_idx", kinds.join("+"));
    let mamba2 = Mamba2::of_state_spaces(config, plan.d_model())?;
    let attention = StateSpaces::read(config, plan.d_model())?;
    mamba2.options(&mut plan, "mamba2.", &STATE_SPACES);
    attention.options(&mut plan, "attention.");
    for (layer, kind) in kinds.iter().enumerate() {
        match *kind {
            "attention" => attention.places(&mut plan, layer),
            _ => mamba2.places(&mut plan, &mixer(layer), layer),
        }
    }
    Ok(plan)
}
