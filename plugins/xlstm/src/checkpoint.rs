//! xLSTM-7B's checkpoints in the Hugging Face layout: names and options only.

use longhaul_plugin_kit::Result;
use longhaul_plugin_kit::checkpoint::{Config, Format, Plan};

/// The checkpoints this plugin reads.
pub const FORMATS: &[Format] = &[Format {
    model_type: "xlstm",
    harmless: &[
        "autocast_kernel_dtype",
        "chunk_size",
        "chunkwise_kernel",
        "inference_state_dtype",
        "max_inference_chunksize",
        "mode",
        "norm_reduction_force_float32",
        "return_last_states",
        "sequence_kernel",
        "step_kernel",
    ],
    read,
}];

/// Columns of a layer's parts.
struct Sizes {
    heads: usize,
    keys: usize,
    values: usize,
    hidden: usize,
    /// Whether matrices that read the same stand in one tensor.
    fused: bool,
}

impl Sizes {
    fn read(config: &Config, plan: &mut Plan) -> Result<Self> {
        let d_model = plan.d_model();
        let heads = config.size_or("num_heads", 8)?;
        plan.option_of("heads", "num_heads", heads);
        let mut columns = |key, option, default| {
            let factor = config.positive_or(key, default)?;
            plan.option_of(option, key, factor);
            let cols = (factor * d_model as f64) as usize;
            let divides = cols > 0 && cols.is_multiple_of(heads);
            let expected =
                format!("a factor that makes a multiple of num_heads, {heads}, of {d_model}");
            config.expect(key, divides, &expected)?;
            Ok(cols)
        };
        let keys = columns("qk_dim_factor", "qk_factor", 0.5)?;
        let values = columns("v_dim_factor", "v_factor", 1.0)?;
        let factor = config.positive_or("ffn_proj_factor", 2.667)?;
        let multiple = config.size_or("ffn_round_up_to_multiple_of", 64)?;
        // As transformers rounds up: a number that is not whole counts as the next.
        let steps = (factor * d_model as f64 + (multiple - 1) as f64).div_euclid(multiple as f64);
        let hidden = steps as usize * multiple;
        plan.option_of("mlp_hidden", "ffn_proj_factor", hidden);
        let fused = config.word_of("weight_mode", &["single", "fused"])? == "fused";
        Ok(Self {
            heads,
            keys,
            values,
            hidden,
            fused,
        })
    }
}

fn read(config: &Config) -> Result<Plan> {
    let mut plan = Plan::new("mlstm", config)?;
    let (d_model, layers) = (plan.d_model(), plan.layers());
    // Both pairs of keys say the same.
    for (key, other, size) in [
        ("embedding_dim", "hidden_size", d_model),
        ("num_blocks", "num_hidden_layers", layers),
    ] {
        let same = !config.has(key) || config.size(key)? == size;
        config.expect(key, same, &format!("{other}, {size}"))?;
    }
    for (key, only) in [
        ("add_out_norm", true),
        ("use_bias", false),
        ("tie_word_embeddings", false),
    ] {
        let fits = config.boolean_or(key, only)? == only;
        config.expect(key, fits, &only.to_string())?;
    }
    plan.option("block", "post-up");
    let sizes = Sizes::read(config, &mut plan)?;
    let cap = config.positive_or("gate_soft_cap", 15.0)?;
    plan.option_of("gate_soft_cap", "gate_soft_cap", cap);
    let cap = config.positive_or("output_logit_soft_cap", 30.0)?;
    plan.option_of("logit_cap", "output_logit_soft_cap", cap);
    plan.option("norm", "rmsnorm");
    let epsilon = config.positive_or("norm_eps", 1e-6)?;
    plan.option_of("norm_epsilon", "norm_eps", epsilon);
    plan.option_of("head_norm_epsilon", "norm_eps", epsilon);
    let epsilon = config.positive_or("eps", 1e-6)?;
    plan.option_of("normaliser_epsilon", "eps", epsilon);
    plan.option("mlp", "gated");
    plan.ends(
        config,
        "backbone.embeddings.weight",
        "lm_head.weight",
        false,
    )?;
    plan.whole("backbone.out_norm.weight", &[d_model], "norm.weight");
    for layer in 0..layers {
        sizes.places(&mut plan, layer);
    }
    Ok(plan)
}

impl Sizes {
    fn places(&self, plan: &mut Plan, layer: usize) {
        let (d_model, ours) = (plan.d_model(), format!("layers.{layer}"));
        let block = format!("backbone.blocks.{layer}");
        for (theirs, name, shape) in [
            ("norm_mlstm", "norm1", &[d_model][..]),
            ("norm_ffn", "norm2", &[d_model]),
            ("mlstm_layer.multihead_norm", "mixer.norm", &[self.values]),
            (
                "mlstm_layer.out_proj",
                "mixer.out_proj",
                &[d_model, self.values],
            ),
            ("ffn.proj_down", "mlp.down", &[d_model, self.hidden]),
        ] {
            let theirs = format!("{block}.{theirs}.weight");
            plan.whole(&theirs, shape, &format!("{ours}.{name}.weight"));
        }
        let parts = |parts: &[(&str, usize)], kind: &str| -> Vec<(String, usize)> {
            let part = |(name, rows): &(&str, usize)| (format!("{block}.{name}.{kind}"), *rows);
            parts.iter().map(part).collect()
        };
        let [qkvo, gates] = match self.fused {
            true => [
                vec![("mlstm_layer.qkv_opreact", 2 * (self.keys + self.values))],
                vec![("mlstm_layer.ifgate_preact", 2 * self.heads)],
            ],
            false => [
                vec![
                    ("mlstm_layer.q", self.keys),
                    ("mlstm_layer.k", self.keys),
                    ("mlstm_layer.v", self.values),
                    ("mlstm_layer.ogate_preact", self.values),
                ],
                vec![
                    ("mlstm_layer.igate_preact", self.heads),
                    ("mlstm_layer.fgate_preact", self.heads),
                ],
            ],
        };
        let mixer = format!("{ours}.mixer");
        plan.stacked(
            &parts(&qkvo, "weight"),
            d_model,
            &format!("{mixer}.qkvo.weight"),
        );
        plan.stacked(
            &parts(&gates, "weight"),
            d_model,
            &format!("{mixer}.gates.weight"),
        );
        plan.joined(&parts(&gates, "bias"), &format!("{mixer}.gates.bias"));
        let [gate, up] = ["gate", "up"].map(|name| format!("{ours}.mlp.{name}.weight"));
        if self.fused {
            let both = [(gate, self.hidden), (up, self.hidden)];
            plan.unstacked(
                &format!("{block}.ffn.proj_up_gate_z.weight"),
                d_model,
                &both,
            );
        } else {
            let shape = [self.hidden, d_model];
            plan.whole(&format!("{block}.ffn.proj_up_gate.weight"), &shape, &gate);
            plan.whole(&format!("{block}.ffn.proj_up.weight"), &shape, &up);
        }
    }
}
