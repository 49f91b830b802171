//! `config.json` of a checkpoint: understood, or refused in one sentence, by every plugin that reads checkpoints.

use std::collections::BTreeMap;
use std::path::PathBuf;

use longhaul_fuzz::random::Random;
use longhaul_fuzz::{driver, json, text};
use longhaul_plugin_api::checkpoint::model_types;
use longhaul_plugin_api::client::LoadedPlugin;
use longhaul_tests::build;

/// Every checkpoint's config.
fn corpus() -> Vec<String> {
    let folder = build::workspace().join("tests/checkpoints");
    let entries = std::fs::read_dir(folder).expect("the checkpoints are there");
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.expect("readable").path().join("config.json"))
        .filter(|path| path.is_file())
        .collect();
    paths.sort();
    let texts = paths.iter().map(std::fs::read_to_string);
    texts.collect::<Result<_, _>>().expect("readable")
}

/// The plugins by the `model_type` that they read.
fn plugins() -> BTreeMap<String, LoadedPlugin> {
    build::longhaul();
    let mut all = BTreeMap::new();
    for family in [
        "griffin",
        "hybrid",
        "mamba",
        "mamba2",
        "rwkv",
        "transformer",
    ] {
        let library = build::profile_folder().join(format!("liblonghaul_{family}.so"));
        let open =
            || LoadedPlugin::open(&library, longhaul::logging::plugin_log).expect("a built plugin");
        let types: Vec<String> = model_types(open().info()).map(str::to_owned).collect();
        all.extend(types.into_iter().map(|kind| (kind, open())));
    }
    all
}

fn make(random: &mut Random, corpus: &[String]) -> Vec<u8> {
    let config = random.choose(corpus);
    if random.one_in(4) {
        return text::bytes(random, config.as_bytes());
    }
    let parsed = serde_json::from_str(config).expect("the corpus is JSON");
    json::document(random, &parsed).to_string().into_bytes()
}

fn attempt(input: &[u8], plugins: &BTreeMap<String, LoadedPlugin>) {
    let text = String::from_utf8_lossy(input);
    for (model_type, plugin) in plugins {
        if !text.contains(&format!("\"{model_type}\"")) {
            continue;
        }
        if let Some(Err(error)) = plugin.checkpoint(model_type, &text) {
            let message = error.to_string();
            assert!(!message.contains("panic"), "{message}");
        }
    }
}

fn main() {
    let (corpus, plugins) = (corpus(), plugins());
    driver::fuzz(
        "config_json",
        6_000,
        |random| make(random, &corpus),
        |input| attempt(input, &plugins),
    );
}
