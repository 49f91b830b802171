//! Layers whose state is a model that learns while it reads: TTT-Linear (arXiv 2407.04620) and Titans' neural memory
//! (arXiv 2501.00663), on the kit's fast weights.

mod linear;
mod titans;

pub use linear::ttt_linear;
pub use titans::titans;

use longhaul_plugin_kit::options::Settings;
use longhaul_plugin_kit::{PluginError, Result, options};

longhaul_plugin_kit::plugin!(Plugin, crate::ttt_linear(), crate::titans());

options! {
    /// Sizes of both.
    struct Sizes {
        head_dim: usize = 64, 1..=256 => "width of a head, at most D; heads are D over it";
        mini_batch: usize = 16, 1..=1024 => "tokens whose gradients are taken at the same weights";
    }
}

/// The number of heads.
///
/// # Errors
/// Heads that do not divide D.
fn heads_of(settings: &Settings, sizes: &Sizes) -> Result<usize> {
    let d_model = settings.d_model();
    let width = sizes.head_dim.min(d_model);
    if !d_model.is_multiple_of(width) {
        return Err(PluginError::bad_option(format!(
            "head_dim={width} with a model width of {d_model}: it must divide it"
        )));
    }
    Ok(d_model / width)
}
