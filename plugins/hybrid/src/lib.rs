//! Hybrids: a pattern of attention, state-space and recurrent layers in one model, made of the mixers of the other
//! plugins. `kinds` has these mixers, `mixer` deals them out, `layouts` says which layer is of which kind in published
//! hybrids, `published` has these as architectures, `checkpoint`, `jamba` and `qwen3_next` read files.

mod checkpoint;
mod jamba;
mod kinds;
mod layouts;
mod mixer;
mod published;
mod qwen3_next;
#[cfg(test)]
mod tests;

pub use mixer::architecture;
pub use published::{jamba, kimi_linear, mamba2attn, qwen3_next, samba};

longhaul_plugin_kit::plugin!(
    Plugin,
    crate::architecture(),
    crate::mamba2attn(),
    crate::samba(),
    crate::jamba(),
    crate::kimi_linear(),
    crate::qwen3_next();
    crate::checkpoint::FORMATS
);
