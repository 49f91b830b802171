//! `config.json` of a checkpoint, damaged: read, or refused in one sentence.

use longhaul_fuzz::checkpoints::{Checkpoint, corpus, libraries, read};
use longhaul_fuzz::random::Random;
use longhaul_fuzz::{answer, driver, json, text};

/// A number of a checkpoint of the corpus, then its config, changed.
fn make(random: &mut Random, corpus: &[Checkpoint]) -> Vec<u8> {
    let index = random.below(corpus.len());
    let config = &corpus[index].config;
    let mut input = format!("{index}\n").into_bytes();
    if random.one_in(4) {
        input.extend(text::bytes(random, config.as_bytes()));
    } else {
        let parsed = serde_json::from_str(config).expect("the corpus is JSON");
        input.extend(json::document(random, &parsed).to_string().into_bytes());
    }
    input
}

fn main() {
    let (corpus, libraries) = (corpus(), libraries());
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path();
    let make = |random: &mut Random| make(random, &corpus);
    driver::fuzz("config_json", 6_000, &answer::BOTH, make, |input| {
        let line = input
            .iter()
            .position(|&byte| byte == b'\n')
            .expect("a number and a config");
        let index = String::from_utf8_lossy(&input[..line]);
        let checkpoint = &corpus[index.parse::<usize>().expect("a number")];
        std::fs::write(path.join("model.safetensors"), &checkpoint.weights).expect("writable");
        std::fs::write(path.join("config.json"), &input[line + 1..]).expect("writable");
        answer::of(&read(path, &libraries))
    });
}
