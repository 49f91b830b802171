//! Weights and the list of shards of a checkpoint, damaged: read, or refused in one sentence.

use longhaul_fuzz::checkpoints::{corpus, libraries, read};
use longhaul_fuzz::random::Random;
use longhaul_fuzz::{answer, driver, json, text};
use serde_json::{Value, json};

/// What stands before an input that is a list of shards instead of weights.
const LIST: &[u8] = b"list\n";

/// Weights with a changed header or changed bytes.
fn weights(random: &mut Random, whole: &[u8]) -> Vec<u8> {
    if random.one_in(2) {
        return text::bytes(random, whole);
    }
    let (length, rest) = whole.split_at(8);
    let length = u64::from_le_bytes(length.try_into().expect("eight bytes")) as usize;
    let header: Value = serde_json::from_slice(&rest[..length]).expect("the corpus is whole");
    let header = json::document(random, &header).to_string();
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend(&rest[length..]);
    bytes
}

fn main() {
    let (all, libraries) = (corpus(), libraries());
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path();
    let checkpoint = all
        .iter()
        .find(|checkpoint| checkpoint.name == "llama")
        .expect("there");
    let file = |name: &str| path.join(name);
    std::fs::write(file("config.json"), &checkpoint.config).expect("writable");
    let list = json!({
        "metadata": {"total_size": 1},
        "weight_map": {"model.norm.weight": "whole.safetensors", "lm_head.weight": "./whole.safetensors"},
    });
    let make = |random: &mut Random| match random.one_in(4) {
        true => [LIST, json::document(random, &list).to_string().as_bytes()].concat(),
        false => weights(random, &checkpoint.weights),
    };
    driver::fuzz("safetensors", 5_000, &answer::BOTH, make, |input| {
        let names = [
            "model.safetensors",
            "model.safetensors.index.json",
            "whole.safetensors",
        ];
        for name in names {
            let _ = std::fs::remove_file(file(name));
        }
        match input.strip_prefix(LIST) {
            Some(list) => {
                std::fs::write(file(names[1]), list).expect("writable");
                std::fs::write(file(names[2]), &checkpoint.weights).expect("writable");
            }
            None => std::fs::write(file(names[0]), input).expect("writable"),
        }
        answer::of(&read(path, &libraries))
    });
}
