//! Where plugins keep the kernels that they compiled for a card: one folder for all of them, which the
//! host shows.

use std::path::PathBuf;

/// Names the folder, where set.
pub const CACHE_VARIABLE: &str = "LONGHAUL_KERNEL_CACHE";

/// The folder: that of [`CACHE_VARIABLE`], or `longhaul/kernels` in the user's folder for caches
/// (`XDG_CACHE_HOME`, else `.cache` in `HOME`); `None` where neither is known.
pub fn cache_folder() -> Option<PathBuf> {
    let own = std::env::var_os(CACHE_VARIABLE).map(PathBuf::from);
    let user = || std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    own.or_else(|| Some(user().or_else(home)?.join("longhaul").join("kernels")))
}
