//! Llama and Mistral checkpoints in the Hugging Face layout: names and options only.

use longhaul_plugin_kit::Result;
use longhaul_plugin_kit::checkpoint::{Config, Format, Plan};

/// The checkpoints this plugin reads.
pub const FORMATS: &[Format] = &[
    Format {
        model_type: "llama",
        read,
    },
    Format {
        model_type: "mistral",
        read,
    },
];

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
    /// Reads the keys that the Llama family of configs shares.
    ///
    /// # Errors
    /// If one is absent or wrong.
    pub fn read(config: &Config) -> Result<Self> {
        let heads = config.size("num_attention_heads")?;
        Ok(Self {
            heads,
            kv_heads: config.size_or("num_key_value_heads", heads)?,
            head_dim: config.size_or("head_dim", config.size("hidden_size")? / heads)?,
        })
    }

    /// Sets the options, each under `prefix`, and the rotary ones from the config.
    ///
    /// # Errors
    /// A rotary embedding that is scaled.
    pub fn options(
        &self,
        plan: &mut Plan,
        prefix: &str,
        config: &Config,
        share: f64,
    ) -> Result<()> {
        plan.option(&format!("{prefix}heads"), self.heads);
        plan.option(&format!("{prefix}kv_heads"), self.kv_heads);
        plan.option(&format!("{prefix}head_dim"), self.head_dim);
        let (base, share) = config.rotary(10_000.0, share)?;
        plan.option(&format!("{prefix}rope_base"), base);
        plan.option(&format!("{prefix}rope_share"), share);
        plan.ignore("rotary_emb.inv_freq");
        Ok(())
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

fn read(config: &Config) -> Result<Plan> {
    config.expect_word("hidden_act", &["silu"])?;
    let mut plan = Plan::new("transformer", config)?;
    let sizes = Sizes::read(config)?;
    sizes.options(&mut plan, "", config, 1.0)?;
    let bias = config.boolean_or("attention_bias", false)?;
    let mlp_bias = config.boolean_or("mlp_bias", false)?;
    let hidden = config.size("intermediate_size")?;
    plan.option("bias", bias);
    plan.option("mlp", "gated");
    plan.option("mlp_bias", mlp_bias);
    plan.option("mlp_hidden", hidden);
    plan.option("norm", "rmsnorm");
    plan.option("norm_epsilon", config.float_or("rms_norm_eps", 1e-6)?);
    if config.has("sliding_window") && config.boolean_or("use_sliding_window", true)? {
        plan.option("window", config.size("sliding_window")?);
    }
    plan.ends(config, "model.embed_tokens.weight", "lm_head.weight", false)?;
    plan.padding(config)?;
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
