//! The architectures by name, with their sources and options.

use longhaul_plugin_kit::api::metadata::Family;
use longhaul_plugin_kit::{Architecture, options};

use crate::mixer::{Attention, Kind};

options! {
    pub(crate) enum Positions {
        Rope = "rope",
        Alibi = "alibi",
        Nope = "nope",
        Learned = "learned",
        HardAlibi = "hard-alibi",
    }

    pub(crate) enum RopeScaling {
        None = "none",
        Linear = "linear",
        Yarn = "yarn",
        Llama3 = "llama3",
    }

    /// Sizes of the heads, also of `path`.
    #[derive(Copy)]
    pub(crate) struct HeadOptions {
        heads: usize = 0, 0..=1024 => "query heads; 0 is one for every 64 of the model width";
        kv_heads: usize = 0, 0..=1024 => "key and value heads; 0 is as many as heads";
        head_dim: usize = 0, 0..=1024 => "width of a head; 0 is the model width over heads";
    }

    pub(crate) struct Options {
        positions: Positions => "what a token knows of its position";
        heads: HeadOptions;
        window: usize = 0, 0..=1 << 20 => "tokens a query sees, itself included; 0 is all";
        rope_base: f64 = 10_000.0, 1.0..=1e9 => "base of the rotary frequencies";
        rope_scaling: RopeScaling => "how rotary angles are squeezed for longer sequences";
        rope_factor: f64 = 1.0, 1.0..=1e6 => "how many times longer than rope_original_length they are to be";
        rope_original_length: usize = 0, 0..=1 << 40
            => "longest sequence trained on before, in tokens; yarn and llama3 need it";
        rope_beta_fast: f64 = 0.0, 0.0..=1e6
            => "pairs with more turns in that length stay; 0 is 32 for yarn, 4 for llama3";
        rope_beta_slow: f64 = 0.0, 0.0..=1e6
            => "pairs with fewer turns in that length are interpolated; 0 is 1";
        rope_attention_factor: f64 = 0.0, 0.0..=1e3
            => "yarn: factor of queries and keys; 0 is 0.1 ln(rope_factor) + 1";
        rope_truncate: bool = true => "yarn: whether the ends of its ramp are whole pairs";
        rope_share: f64 = 1.0, 0.0..=1.0 => "part of a head that is rotated";
        max_positions: usize = 0, 0..=1 << 20 => "rows of the learned table; 0 is 16 times the training length";
        conv: usize = 0, 0..=64
            => "taps of a short convolution over queries, keys and values; 0 is none";
        bias: bool = false => "biases in the projections";
        qk_norm: bool = false => "RMS norms of the queries and keys of each head";
        qk_norm_shared: bool = false => "these norms have one weight for all heads";
        qk_norm_epsilon: f32 = 1e-6, 1e-12..=1e-1 => "epsilon of these norms";
        output_gate: bool = false => "what attention gives, times a sigmoid of the layer's input";
    }
}

/// The architecture `transformer`.
pub fn architecture() -> Architecture {
    Architecture {
        name: "transformer",
        title: "Softmax attention: rope, alibi, nope, learned, hard-alibi",
        family: Family::Attention,
        citation: CITATION,
        options: Options::default().specs(),
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
        options: Options {
            output_gate: true,
            ..Options::default()
        }
        .specs(),
        ..architecture()
    }
}

/// The architecture `fox`.
pub fn fox() -> Architecture {
    Architecture {
        name: "fox",
        title: "Forgetting attention: softmax attention with a forget gate a head",
        citation: FOX_CITATION,
        options: Options {
            positions: Positions::Nope,
            ..Options::default()
        }
        .specs(),
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
