//! Qwen3-Next checkpoints in the Hugging Face layout: names and options only. Rows of its projections stand head by
//! head there, and each of ours by what it is.

use longhaul_plugin_kit::Result;
use longhaul_plugin_kit::checkpoint::{Config, Plan, Rotary};
use longhaul_transformer::checkpoint::Sizes as Attention;

/// Rotary embedding where a config says nothing: of a quarter of a head.
const ROTARY: Rotary = Rotary::plain(10_000.0, 0.25);

/// Reads a config.
///
/// # Errors
/// A key or value that is not honoured, such as layers with experts.
pub fn read(config: &Config) -> Result<Plan> {
    config.expect_word("hidden_act", &["silu", "swish"])?;
    let mut plan = Plan::new("qwen3-next", config)?;
    let (d_model, layers) = (plan.d_model(), plan.layers());
    refuse_experts(config, layers)?;
    let delta = Delta::read(config)?;
    let attention = attention(config)?;
    let bias = config.boolean_or("attention_bias", false)?;
    let attended = attended(config, layers)?;
    let epsilon = config.positive_or("rms_norm_eps", 1e-6)?;
    let hidden = config.size("intermediate_size")?;
    let kinds: Vec<&str> = attended
        .iter()
        .map(|&attended| match attended {
            true => "attention",
            false => "gated-deltanet",
        })
        .collect();
    plan.option_of("pattern", "layer_types", kinds.join("+"));
    delta.options(&mut plan);
    let rotary = config.rotary(ROTARY)?;
    let rotated = (attention.head_dim as f64 * rotary.share) as usize;
    let expected = format!(
        "a size whose part partial_rotary_factor, {}, is even",
        rotary.share
    );
    config.expect("head_dim", rotated.is_multiple_of(2), &expected)?;
    attention.options(&mut plan, "attention.", rotary);
    plan.option_of("attention.bias", "attention_bias", bias);
    for option in ["qk_norm", "qk_norm_shared", "output_gate"] {
        plan.option(&format!("attention.{option}"), true);
    }
    for option in [
        "attention.qk_norm_epsilon",
        "gated-deltanet.norm_gate_epsilon",
        "norm_epsilon",
    ] {
        plan.option_of(option, "rms_norm_eps", epsilon);
    }
    plan.option("norm", "rmsnorm");
    plan.option("mlp", "gated");
    plan.option_of("mlp_hidden", "intermediate_size", hidden);
    plan.ends(config, "model.embed_tokens.weight", "lm_head.weight", false)?;
    plan.padding(config, None)?;
    plan.one_more("model.norm.weight", &[d_model], "norm.weight");
    for (layer, attended) in attended.into_iter().enumerate() {
        let theirs = format!("model.layers.{layer}");
        for (norm, ours) in [("input_layernorm", 1), ("post_attention_layernorm", 2)] {
            plan.one_more(
                &format!("{theirs}.{norm}.weight"),
                &[d_model],
                &format!("layers.{layer}.norm{ours}.weight"),
            );
        }
        if attended {
            attention_places(&mut plan, &attention, layer, bias);
        } else {
            delta.places(&mut plan, layer);
        }
        plan.gated_mlp(&format!("{theirs}.mlp"), layer, hidden, false);
    }
    Ok(plan)
}

/// Refuses layers whose MLP is a mixture of experts.
fn refuse_experts(config: &Config, layers: usize) -> Result<()> {
    let experts = config.optional_number("num_experts")?;
    let step = config.size_or("decoder_sparse_step", 1)?;
    let dense = config.indices("mlp_only_layers", layers, "num_hidden_layers")?;
    let has_experts = |layer: &usize| !dense.contains(layer) && (layer + 1).is_multiple_of(step);
    let first = (0..layers).find(has_experts);
    let Some(first) = first.filter(|_| experts != Some(0.0)) else {
        return Ok(());
    };
    let expected = format!(
        "0: with decoder_sparse_step {step}, layer {first} of num_hidden_layers, {layers}, would be a mixture of experts, which \
         is not computed here, unless mlp_only_layers has it"
    );
    config.expect("num_experts", false, &expected)
}

/// Whether each layer is attention.
fn attended(config: &Config, layers: usize) -> Result<Vec<bool>> {
    let interval = config.size_or("full_attention_interval", 4)?;
    let key = "layer_types";
    let Some(words) = config.words_if_any(key, &["linear_attention", "full_attention"])? else {
        return Ok((1..=layers)
            .map(|layer| layer.is_multiple_of(interval))
            .collect());
    };
    let fits = words.len() == layers;
    config.expect(
        key,
        fits,
        &format!("a word for each of num_hidden_layers, {layers}"),
    )?;
    Ok(words.iter().map(|word| *word == "full_attention").collect())
}

/// Sizes of the attention, whose head is wider than D over the heads where a config does not say.
fn attention(config: &Config) -> Result<Attention> {
    Ok(Attention {
        head_dim: config.size_or("head_dim", 256)?,
        ..Attention::read(config, Some(2))?
    })
}

/// `q_proj` has each head's queries, then its gate.
fn attention_places(plan: &mut Plan, sizes: &Attention, layer: usize, bias: bool) {
    let Attention {
        heads,
        kv_heads,
        head_dim,
    } = *sizes;
    let (theirs, ours) = (
        format!("model.layers.{layer}.self_attn"),
        format!("layers.{layer}.mixer"),
    );
    let d_model = plan.d_model();
    let (q, kv) = (heads * head_dim, kv_heads * head_dim);
    let kinds: &[(&str, &[usize])] = &[("weight", &[d_model]), ("bias", &[])];
    for (kind, row) in &kinds[..1 + usize::from(bias)] {
        let values: usize = row.iter().product();
        let shape = |rows: usize| [&[rows], *row].concat();
        for head in 0..heads {
            for (part, own) in ["qkv", "gate"].iter().enumerate() {
                plan.part(
                    &format!("{theirs}.q_proj.{kind}"),
                    ((2 * head + part) * head_dim, 2 * q),
                    &shape(head_dim),
                    &format!("{ours}.{own}.{kind}"),
                    head * head_dim * values,
                );
            }
        }
        for (name, start) in [("k_proj", q), ("v_proj", q + kv)] {
            plan.whole_at(
                &format!("{theirs}.{name}.{kind}"),
                &shape(kv),
                &format!("{ours}.qkv.{kind}"),
                start * values,
            );
        }
    }
    plan.whole(
        &format!("{theirs}.o_proj.weight"),
        &[d_model, q],
        &format!("{ours}.out_proj.weight"),
    );
    if bias {
        let parameter = format!("{ours}.out_proj.bias");
        plan.whole(&format!("{theirs}.o_proj.bias"), &[d_model], &parameter);
    }
    for norm in ["q_norm", "k_norm"] {
        plan.one_more(
            &format!("{theirs}.{norm}.weight"),
            &[head_dim],
            &format!("{ours}.{norm}.weight"),
        );
    }
}

/// Sizes of a Gated DeltaNet layer.
struct Delta {
    /// Heads of queries and keys, G.
    groups: usize,
    /// Heads of values, H.
    heads: usize,
    key: usize,
    value: usize,
    conv: usize,
}

impl Delta {
    fn read(config: &Config) -> Result<Self> {
        let sizes = Self {
            groups: config.size_or("linear_num_key_heads", 16)?,
            heads: config.size_or("linear_num_value_heads", 32)?,
            key: config.size_or("linear_key_head_dim", 128)?,
            value: config.size_or("linear_value_head_dim", 128)?,
            conv: config.size_or("linear_conv_kernel_dim", 4)?,
        };
        let expected = format!("a multiple of linear_num_key_heads, {}", sizes.groups);
        let divides = sizes.heads.is_multiple_of(sizes.groups);
        config.expect("linear_num_value_heads", divides, &expected)?;
        // One tap would still be a weight a channel there.
        config.expect("linear_conv_kernel_dim", sizes.conv > 1, "2 or more")?;
        Ok(sizes)
    }

    fn options(&self, plan: &mut Plan) {
        for (option, key, size) in [
            ("heads", "linear_num_key_heads", self.groups),
            ("value_heads", "linear_num_value_heads", self.heads),
            ("head_dim", "linear_key_head_dim", self.key),
            ("conv", "linear_conv_kernel_dim", self.conv),
        ] {
            plan.option_of(&format!("gated-deltanet.{option}"), key, size);
        }
        let expand = self.value as f64 / self.key as f64;
        plan.option_of(
            "gated-deltanet.expand_v",
            "linear_value_head_dim, linear_key_head_dim",
            expand,
        );
    }

    /// `in_proj_qkvz` has, key head by key head, its query, its key, the values and the gates of the heads that share
    /// them; `in_proj_ba` their steps and decays. Ours is queries, keys, values, steps, decays, gates of all.
    fn places(&self, plan: &mut Plan, layer: usize) {
        let Self {
            groups,
            heads,
            key,
            value,
            conv,
        } = *self;
        let (theirs, ours) = (
            format!("model.layers.{layer}.linear_attn"),
            format!("layers.{layer}.mixer"),
        );
        let d_model = plan.d_model();
        let sharing = heads / groups;
        let qkvz = [key, key, sharing * value, sharing * value];
        let ba = [sharing, sharing];
        // In our order: which tensor, and which part of a group in it.
        let parts = [
            ("in_proj_qkvz", &qkvz[..], 0),
            ("in_proj_qkvz", &qkvz, 1),
            ("in_proj_qkvz", &qkvz, 2),
            ("in_proj_ba", &ba, 0),
            ("in_proj_ba", &ba, 1),
            ("in_proj_qkvz", &qkvz, 3),
        ];
        let mut row = 0;
        for (name, sizes, part) in parts {
            let a_group: usize = sizes.iter().sum();
            let before: usize = sizes[..part].iter().sum();
            for group in 0..groups {
                plan.part(
                    &format!("{theirs}.{name}.weight"),
                    (group * a_group + before, groups * a_group),
                    &[sizes[part], d_model],
                    &format!("{ours}.in_proj.weight"),
                    row * d_model,
                );
                row += sizes[part];
            }
        }
        let convolved = 2 * groups * key + heads * value;
        let mut whole = |name: &str, shape: &[usize]| {
            plan.whole(
                &format!("{theirs}.{name}"),
                shape,
                &format!("{ours}.{name}"),
            );
        };
        whole("conv1d.weight", &[convolved, 1, conv]);
        whole("dt_bias", &[heads]);
        whole("A_log", &[heads]);
        whole("norm.weight", &[value]);
        whole("out_proj.weight", &[d_model, heads * value]);
    }
}
