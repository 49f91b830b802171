//! Published hybrids as architectures: where attention is, what the other layers are, and their usual options. Widths
//! and numbers of heads follow from the model's width, as everywhere here.

use longhaul_plugin_kit::api::metadata::Family;
use longhaul_plugin_kit::options::Settings;
use longhaul_plugin_kit::{Architecture, Mixer, Result, options};

use crate::kinds;
use crate::layouts::Layout;
use crate::mixer::{Hybrid, dealt};

/// The word of the option `pattern` for the published layout.
const PUBLISHED: &str = "published";

options! {
    struct Options {
        pattern: String = PUBLISHED.into() => "kinds of the layers, repeated";
    }
}

/// What a published hybrid is.
struct Published {
    name: &'static str,
    title: &'static str,
    citation: &'static str,
    /// The kind of the layers that are not attention.
    other: &'static str,
    layout: Layout,
    /// Options that it has otherwise than the kinds by themselves.
    defaults: &'static [(&'static str, &'static str)],
    default_mlp: &'static str,
}

impl Published {
    fn kinds(&self) -> [&'static str; 2] {
        [self.other, "attention"]
    }

    fn architecture(&self, mixer: fn(&Settings) -> Result<Box<dyn Mixer>>) -> Architecture {
        let mut parts = kinds::all();
        parts.retain(|(kind, _)| self.kinds().contains(kind));
        let mut options = Options::default().specs();
        let example = format!(": {}*3+attention; published is where they were", self.other);
        options[0].help.push_str(&example);
        options.extend(kinds::options(&parts, self.defaults));
        Architecture {
            name: self.name,
            title: self.title,
            family: Family::Hybrid,
            citation: self.citation,
            options,
            default_mlp: self.default_mlp,
            mixer,
        }
    }

    fn mixer(&self, settings: &Settings) -> Result<Box<dyn Mixer>> {
        let layers = match Options::read(settings)?.pattern.as_str() {
            PUBLISHED => self.layout.kinds(self.other, settings.layers()),
            pattern => dealt(pattern, &self.kinds(), settings.layers())?,
        };
        Ok(Box::new(Hybrid::new(settings, &layers)?))
    }
}

/// The architecture `mamba2attn`: Mamba-2 with little attention, which has a convolution of 4 taps and turns half of
/// each head (state-spaces/mamba2attn-2.7b).
pub fn mamba2attn() -> Architecture {
    MAMBA2ATTN.architecture(|settings| MAMBA2ATTN.mixer(settings))
}

const MAMBA2ATTN: Published = Published {
    name: "mamba2attn",
    title: "Mamba-2 with six layers of attention in 64",
    citation: "@inproceedings{dao2024transformers,
  title={Transformers are {SSM}s: Generalized Models and Efficient Algorithms Through Structured State Space Duality},
  author={Dao, Tri and Gu, Albert},
  booktitle={International Conference on Machine Learning}, year={2024}, note={arXiv:2405.21060}
}",
    other: "mamba2",
    layout: Layout::Mamba2Attn,
    defaults: &[("attention.conv", "4"), ("attention.rope_share", "0.5")],
    default_mlp: "none",
};

/// The architecture `samba`: Mamba and attention in a window in turn, an MLP behind each.
pub fn samba() -> Architecture {
    SAMBA.architecture(|settings| SAMBA.mixer(settings))
}

const SAMBA: Published = Published {
    name: "samba",
    title: "Samba: Mamba and attention in a window, in turn",
    citation: "@inproceedings{ren2025samba,
  title={Samba: Simple Hybrid State Space Models for Efficient Unlimited Context Language Modeling},
  author={Ren, Liliang and Liu, Yang and Lu, Yadong and Shen, Yelong and Liang, Chen and Chen, Weizhu},
  booktitle={International Conference on Learning Representations}, year={2025}, note={arXiv:2406.07522}
}",
    other: "mamba",
    layout: Layout::Every {
        period: 2,
        place: 1,
    },
    defaults: &[("attention.window", "2048")],
    default_mlp: "gated",
};

/// The architecture `jamba`: seven layers of Mamba to one of attention without positions, an MLP behind each. Every
/// second MLP is a mixture of experts there; here all are dense.
pub fn jamba() -> Architecture {
    JAMBA.architecture(|settings| JAMBA.mixer(settings))
}

const JAMBA: Published = Published {
    name: "jamba",
    title: "Jamba: seven of Mamba to one of attention without positions",
    citation: "@misc{lieber2024jamba,
  title={Jamba: A Hybrid {Transformer-Mamba} Language Model},
  author={Lieber, Opher and Lenz, Barak and Bata, Hofit and others},
  year={2024}, note={arXiv:2403.19887}
}",
    other: "mamba",
    layout: Layout::Every {
        period: 8,
        place: 4,
    },
    defaults: &[
        ("attention.positions", "nope"),
        ("mamba.inner_norms", "true"),
    ],
    default_mlp: "gated",
};

/// The architecture `kimi-linear`: three layers of KDA to one of attention without positions. That is latent attention
/// there; here its queries, keys and values are whole matrices of x.
pub fn kimi_linear() -> Architecture {
    KIMI_LINEAR.architecture(|settings| KIMI_LINEAR.mixer(settings))
}

const KIMI_LINEAR: Published = Published {
    name: "kimi-linear",
    title: "Kimi Linear: three of KDA to one of attention without positions",
    citation: "@misc{kimi2025linear,
  title={Kimi Linear: An Expressive, Efficient Attention Architecture},
  author={{Kimi Team}}, year={2025}, note={arXiv:2510.26692}
}",
    other: "kda",
    layout: Layout::Every {
        period: 4,
        place: 3,
    },
    defaults: &[("attention.positions", "nope")],
    default_mlp: "gated",
};

/// The architecture `qwen3-next`: three layers of Gated DeltaNet to one of gated attention.
pub fn qwen3_next() -> Architecture {
    QWEN3_NEXT.architecture(|settings| QWEN3_NEXT.mixer(settings))
}

const QWEN3_NEXT: Published = Published {
    name: "qwen3-next",
    title: "Qwen3-Next: three of Gated DeltaNet to one of gated attention",
    citation: "@misc{qwen2025next,
  title={{Qwen3-Next}: Towards Ultimate Training and Inference Efficiency},
  author={{Qwen Team}}, year={2025}, note={qwen.ai, and the class Qwen3NextForCausalLM of transformers}
}
@inproceedings{yang2025gated,
  title={Gated Delta Networks: Improving Mamba2 with Delta Rule},
  author={Yang, Songlin and Kautz, Jan and Hatamizadeh, Ali},
  booktitle={International Conference on Learning Representations}, year={2025}, note={arXiv:2412.06464}
}
@inproceedings{qiu2025gated,
  title={Gated Attention for Large Language Models: Non-linearity, Sparsity, and Attention-Sink-Free},
  author={Qiu, Zihan and Wang, Zekun and Zheng, Bo and others},
  booktitle={Advances in Neural Information Processing Systems}, year={2025}, note={arXiv:2505.06708}
}",
    other: "gated-deltanet",
    layout: Layout::Every {
        period: 4,
        place: 3,
    },
    defaults: &[
        ("attention.qk_norm", "true"),
        ("attention.qk_norm_shared", "true"),
        ("attention.output_gate", "true"),
        ("attention.rope_share", "0.25"),
    ],
    default_mlp: "gated",
};
