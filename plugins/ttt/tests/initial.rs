//! Initial values in both forms; the README has the sources of `init=reference`.

use longhaul_plugin_kit::testing_initial::{Law, check_initial_values};
use longhaul_ttt::{titans, ttt_linear};

/// The backbone's own, without an MLP: D is 256.
fn backbone<'a>(init: &str) -> Vec<(&'a str, Law<'a>)> {
    let (embedding, head) = match init {
        "reference" => (Law::Normal(0.02), Law::Normal(0.02)),
        _ => (Law::Normal(1.0 / 16.0), Law::Within(1.0 / 16.0)),
    };
    vec![
        ("embedding.weight", embedding),
        ("head.weight", head),
        ("norm.weight", Law::Constant(1.0)),
        ("norm1.weight", Law::Constant(1.0)),
    ]
}

#[test]
fn ttt_linear_starts_by_its_laws() {
    for init in ["longhaul", "reference"] {
        let dense = |gain: f64| match init {
            "reference" => Law::Normal(0.02),
            _ => Law::Within(gain / 16.0),
        };
        let conv_bias = || match init {
            "reference" => Law::Within(0.5),
            _ => Law::Constant(0.0),
        };
        let mut laws = backbone(init);
        laws.extend([
            ("mixer.q_proj.weight", dense(1.0)),
            ("mixer.v_proj.weight", dense(1.0)),
            ("mixer.g_proj.weight", dense(1.0)),
            ("mixer.o_proj.weight", dense(0.5)),
            ("mixer.conv_q.weight", Law::Within(0.5)),
            ("mixer.conv_k.weight", Law::Within(0.5)),
            ("mixer.conv_q.bias", conv_bias()),
            ("mixer.conv_k.bias", conv_bias()),
            ("mixer.rate.weight", Law::Normal(0.02)),
            ("mixer.rate.bias", Law::Constant(0.0)),
            ("mixer.W1", Law::Normal(0.02)),
            ("mixer.b1", Law::Constant(0.0)),
            ("mixer.ttt_norm.weight", Law::Constant(1.0)),
            ("mixer.ttt_norm.bias", Law::Constant(0.0)),
            ("mixer.learnable_token_idx", Law::Constant(0.0)),
            ("mixer.post_norm.weight", Law::Constant(1.0)),
            ("mixer.post_norm.bias", Law::Constant(0.0)),
        ]);
        let options = [
            ("init", init),
            ("mlp", "none"),
            ("gate", "true"),
            ("share_qk", "true"),
        ];
        check_initial_values(&ttt_linear(), &options, 256, 2, &laws);
    }
}

#[test]
fn titans_start_by_their_laws() {
    for init in ["longhaul", "reference"] {
        let is_reference = init == "reference";
        let dense = |gain: f64| Law::Within(gain / 16.0);
        let mut laws = backbone("longhaul");
        laws.extend([
            ("mixer.in_proj.weight", dense(1.0)),
            ("mixer.conv1d.weight", Law::Within(0.5)),
            ("mixer.paces.weight", dense(1.0)),
            ("mixer.g_proj.weight", dense(1.0)),
            ("mixer.norm.weight", Law::Constant(1.0)),
        ]);
        laws.push(match is_reference {
            true => ("mixer.out_proj.weight", dense(1.0)),
            false => ("mixer.out_proj.weight", dense(0.5)),
        });
        laws.push(match is_reference {
            true => ("mixer.memory", Law::Within((3.0f64 / 32.0).sqrt())),
            false => ("mixer.memory", Law::Normal(0.02)),
        });
        // Rates, keep and momentum of eight heads.
        let biases = |_, index: usize| if index / 8 == 1 { 4.0 } else { 0.0 };
        laws.push(match is_reference {
            true => ("mixer.paces.bias", dense(1.0)),
            false => ("mixer.paces.bias", Law::Formula(&biases)),
        });
        let options = [("init", init), ("mlp", "none"), ("head_dim", "32")];
        check_initial_values(&titans(), &options, 256, 2, &laws);
    }
}
