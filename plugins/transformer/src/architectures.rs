//! The architectures by name, with their sources and options.

use longhaul_plugin_kit::Architecture;
use longhaul_plugin_kit::api::metadata::{Family, OptionSpec};
use longhaul_plugin_kit::options::{boolean, choice, float, integer};

use crate::mixer::{Attention, Kind};

/// The architecture `transformer`.
pub fn architecture() -> Architecture {
    Architecture {
        name: "transformer",
        title: "Softmax attention: rope, alibi, nope, learned, hard-alibi",
        family: Family::Attention,
        citation: CITATION,
        options: options(&PLAIN),
        default_mlp: "gated",
        mixer: |settings| Ok(Box::new(Attention::new(settings, Kind::Plain)?)),
    }
}

/// The architecture `gated-attention`.
pub fn gated() -> Architecture {
    Architecture {
        name: "gated-attention",
        title: "Softmax attention with a sigmoid gate on its output",
        citation: GATED_CITATION,
        options: options(&Defaults {
            output_gate: true,
            ..PLAIN
        }),
        ..architecture()
    }
}

/// The architecture `fox`.
pub fn fox() -> Architecture {
    Architecture {
        name: "fox",
        title: "Forgetting attention: softmax attention with a forget gate a head",
        citation: FOX_CITATION,
        options: options(&Defaults {
            positions: "nope",
            ..PLAIN
        }),
        mixer: |settings| Ok(Box::new(Attention::new(settings, Kind::Forgetting)?)),
        ..architecture()
    }
}

/// The architecture `differential`.
pub fn differential() -> Architecture {
    Architecture {
        name: "differential",
        title: "Differential attention: the difference of two softmaxes",
        citation: DIFFERENTIAL_CITATION,
        mixer: |settings| Ok(Box::new(Attention::new(settings, Kind::Differential)?)),
        ..architecture()
    }
}

/// Those of `transformer`.
const PLAIN: Defaults = Defaults {
    positions: "rope",
    output_gate: false,
};

/// What a named architecture starts from where the options are the same.
struct Defaults {
    positions: &'static str,
    output_gate: bool,
}

fn options(defaults: &Defaults) -> Vec<OptionSpec> {
    vec![
        choice(
            "positions",
            defaults.positions,
            &["rope", "alibi", "nope", "learned", "hard-alibi"],
            "what a token knows of its position",
        ),
        integer(
            "heads",
            0,
            0,
            1024,
            "query heads; 0 is one for every 64 of the model width",
        ),
        integer(
            "kv_heads",
            0,
            0,
            1024,
            "key and value heads; 0 is as many as heads",
        ),
        integer(
            "head_dim",
            0,
            0,
            1024,
            "width of a head; 0 is the model width over heads",
        ),
        integer(
            "window",
            0,
            0,
            1 << 20,
            "tokens a query sees, itself included; 0 is all",
        ),
        float(
            "rope_base",
            10_000.0,
            1.0,
            1e9,
            "base of the rotary frequencies",
        ),
        choice(
            "rope_scaling",
            "none",
            &["none", "linear", "yarn", "llama3"],
            "how rotary angles are squeezed for longer sequences",
        ),
        float(
            "rope_factor",
            1.0,
            1.0,
            1e6,
            "how many times longer than rope_original_length they are to be",
        ),
        integer(
            "rope_original_length",
            0,
            0,
            1 << 40,
            "longest sequence trained on before, in tokens; yarn and llama3 need it",
        ),
        float(
            "rope_beta_fast",
            0.0,
            0.0,
            1e6,
            "pairs with more turns in that length stay; 0 is 32 for yarn, 4 for llama3",
        ),
        float(
            "rope_beta_slow",
            0.0,
            0.0,
            1e6,
            "pairs with fewer turns in that length are interpolated; 0 is 1",
        ),
        float(
            "rope_attention_factor",
            0.0,
            0.0,
            1e3,
            "yarn: factor of queries and keys; 0 is 0.1 ln(rope_factor) + 1",
        ),
        boolean(
            "rope_truncate",
            true,
            "yarn: whether the ends of its ramp are whole pairs",
        ),
        float(
            "rope_share",
            1.0,
            0.0,
            1.0,
            "part of a head that is rotated",
        ),
        integer(
            "max_positions",
            0,
            0,
            1 << 20,
            "rows of the learned table; 0 is 16 times the training length",
        ),
        integer(
            "conv",
            0,
            0,
            64,
            "taps of a short convolution over queries, keys and values; 0 is none",
        ),
        boolean("bias", false, "biases in the projections"),
        boolean(
            "qk_norm",
            false,
            "RMS norms of the queries and keys of each head",
        ),
        boolean(
            "qk_norm_shared",
            false,
            "these norms have one weight for all heads",
        ),
        float(
            "qk_norm_epsilon",
            1e-6,
            1e-12,
            1e-1,
            "epsilon of these norms",
        ),
        boolean(
            "output_gate",
            defaults.output_gate,
            "what attention gives, times a sigmoid of the layer's input",
        ),
    ]
}

const CITATION: &str = "@inproceedings{vaswani2017attention,
  title={Attention Is All You Need},
  author={Vaswani, Ashish and Shazeer, Noam and Parmar, Niki and Uszkoreit, Jakob and Jones, Llion and Gomez, Aidan N. and Kaiser, {\\L}ukasz and Polosukhin, Illia},
  booktitle={Advances in Neural Information Processing Systems}, year={2017}, note={arXiv:1706.03762}
}
@article{su2021roformer,
  title={{RoFormer}: Enhanced Transformer with Rotary Position Embedding},
  author={Su, Jianlin and Lu, Yu and Pan, Shengfeng and Murtadha, Ahmed and Wen, Bo and Liu, Yunfeng},
  year={2021}, note={arXiv:2104.09864}
}
@inproceedings{press2022alibi,
  title={Train Short, Test Long: Attention with Linear Biases Enables Input Length Extrapolation},
  author={Press, Ofir and Smith, Noah A. and Lewis, Mike},
  booktitle={International Conference on Learning Representations}, year={2022}, note={arXiv:2108.12409}
}
@inproceedings{peng2024yarn,
  title={{YaRN}: Efficient Context Window Extension of Large Language Models},
  author={Peng, Bowen and Quesnelle, Jeffrey and Fan, Honglu and Shippole, Enrico},
  booktitle={International Conference on Learning Representations}, year={2024}, note={arXiv:2309.00071}
}
@inproceedings{jelassi2024repeat,
  title={Repeat After Me: Transformers are Better than State Space Models at Copying},
  author={Jelassi, Samy and Brandfonbrener, David and Kakade, Sham M. and Malach, Eran},
  booktitle={International Conference on Machine Learning}, year={2024}, note={arXiv:2402.01032}
}";

const FOX_CITATION: &str = "@inproceedings{lin2025forgetting,
  title={Forgetting Transformer: Softmax Attention with a Forget Gate},
  author={Lin, Zhixuan and Nikishin, Evgenii and He, Xu Owen and Courville, Aaron},
  booktitle={International Conference on Learning Representations}, year={2025}, note={arXiv:2503.02130}
}";

const GATED_CITATION: &str = "@inproceedings{qiu2025gated,
  title={Gated Attention for Large Language Models: Non-linearity, Sparsity, and Attention-Sink-Free},
  author={Qiu, Zihan and Wang, Zekun and Zheng, Bo and Huang, Zeyu and Wen, Kaiyue and Yang, Songlin and Men, Rui and Yu, Le and Huang, Fei and Huang, Suozhi and Liu, Dayiheng and Zhou, Jingren and Lin, Junyang},
  booktitle={Advances in Neural Information Processing Systems}, year={2025}, note={arXiv:2505.06708}
}";

const DIFFERENTIAL_CITATION: &str = "@inproceedings{ye2025differential,
  title={Differential Transformer},
  author={Ye, Tianzhu and Dong, Li and Xia, Yuqing and Sun, Yutao and Zhu, Yi and Huang, Gao and Wei, Furu},
  booktitle={International Conference on Learning Representations}, year={2025}, note={arXiv:2410.05258}
}";
