//! GGUF files become folders in the Hugging Face layout. `tests/gguf/make.py` made the files.

use std::path::Path;
use std::process::Command;

use longhaul_tests::build::workspace;
use longhaul_tests::host::{Ran, longhaul};
use serde_json::Value;

fn checkpoint(command: &str, folder: &Path) -> Ran {
    longhaul(["checkpoint", command, &folder.to_string_lossy()])
}

/// Converts a file of `tests/gguf` into a folder that is not there yet.
fn convert(file: &Path, folder: &Path, more: &[&str]) -> Ran {
    let (file, folder) = (file.to_string_lossy(), folder.to_string_lossy());
    let words = ["checkpoint", "convert", &file, &folder];
    longhaul(words.into_iter().chain(more.iter().copied()))
}

fn json_of(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).expect("readable");
    serde_json::from_str(&text).expect("JSON")
}

#[test]
fn a_gguf_file_becomes_the_model_that_it_was_made_of() {
    let made = workspace().join("tests/gguf");
    for (name, tokenizer) in [
        ("llama", "300 tokens, byte-level BPE, pre-tokenizer smollm"),
        ("pieces", "400 tokens, SentencePiece BPE"),
    ] {
        let out = tempfile::tempdir().expect("a temporary folder");
        let folder = out.path().join("model");
        let file = made.join(format!("{name}.gguf"));
        convert(&file, &folder, &[]).expect(0).prints(&[
            &format!("tiny {name}"),
            "Q8_0",
            "BF16",
            tokenizer,
        ]);
        let expected = made.join(format!("{name}.safetensors"));
        std::fs::copy(expected, folder.join("expected.safetensors")).expect("copied");
        checkpoint("verify", &folder).expect(0);
        let again = convert(&file, &folder, &[]).expect(2);
        again.complains(&["already there"]);
        for dtype in ["bf16", "f16"] {
            let other = out.path().join(dtype);
            convert(&file, &other, &["--dtype", dtype]).expect(0);
            checkpoint("inspect", &other).expect(0);
            let size = |folder: &Path| {
                std::fs::metadata(folder.join("model.safetensors"))
                    .expect("there")
                    .len()
            };
            assert!(size(&other) < size(&folder) * 2 / 3);
        }
    }
}

#[test]
fn a_vocabulary_is_the_tokenizer_that_it_was_made_of() {
    let made = workspace().join("tests/gguf");
    let out = tempfile::tempdir().expect("a temporary folder");
    let folder = out.path().join("model");
    convert(&made.join("llama.gguf"), &folder, &[]).expect(0);
    let (own, theirs) = (
        json_of(&folder.join("tokenizer.json")),
        json_of(&made.join("llama.json"))["tokenizer"].take(),
    );
    for part in ["vocab", "merges", "type", "byte_fallback", "ignore_merges"] {
        assert_eq!(own["model"][part], theirs["model"][part], "{part}");
    }
    for part in [
        "pre_tokenizer",
        "normalizer",
        "added_tokens",
        "post_processor",
    ] {
        assert_eq!(own[part], theirs[part], "{part}");
    }
    let config = json_of(&folder.join("tokenizer_config.json"));
    let expected = [
        ("bos_token", "<|im_start|>"),
        ("eos_token", "<|im_end|>"),
        ("chat_template", "{{ messages }}"),
    ];
    for (key, value) in expected {
        assert_eq!(config[key], value, "{key}");
    }
}

/// Ids of odd texts by the libraries that trained the vocabularies, `tokenizers` and SentencePiece.
#[test]
fn a_vocabulary_out_of_a_gguf_file_gives_its_makers_ids() {
    let made = workspace().join("tests/gguf");
    for name in ["llama", "pieces"] {
        let out = tempfile::tempdir().expect("a temporary folder");
        let folder = out.path().join("model");
        convert(&made.join(format!("{name}.gguf")), &folder, &[]).expect(0);
        let tokenizer = longhaul_text::tokenizer_of(&folder).expect("a tokenizer");
        let words = json_of(&made.join(format!("{name}.json")));
        let texts = words["texts"].as_object().expect("texts");
        assert!(texts.len() > 10);
        for (text, ids) in texts {
            let ids: Vec<u32> = serde_json::from_value(ids.clone()).expect("ids");
            // SentencePiece's begin with the token that is put in front of every text.
            let ids = if name == "pieces" {
                &ids[1..]
            } else {
                &ids[..]
            };
            assert_eq!(
                tokenizer.encode(text).expect("tokens"),
                ids,
                "{name}: {text:?}"
            );
        }
    }
}

#[test]
fn nothing_is_left_of_a_gguf_file_that_is_refused() {
    let out = tempfile::tempdir().expect("a temporary folder");
    let whole = std::fs::read(workspace().join("tests/gguf/llama.gguf")).expect("readable");
    let cut = out.path().join("cut.gguf");
    std::fs::write(&cut, &whole[..whole.len() - 100]).expect("writable");
    let folder = out.path().join("model");
    convert(&cut, &folder, &[])
        .expect(2)
        .complains(&["cut.gguf: tensor `", "cut short"]);
    let page = out.path().join("page.gguf");
    std::fs::write(&page, "<!DOCTYPE html>").expect("writable");
    convert(&page, &folder, &[])
        .expect(2)
        .complains(&["web page"]);
    convert(&out.path().join("none.gguf"), &folder, &[])
        .expect(2)
        .complains(&["none.gguf"]);
    // Files of at most 16 KiB, as a full disk has them: that is the system's refusal.
    let limited = Command::new("bash")
        .args([
            "-c",
            "trap '' XFSZ; ulimit -f 16; exec \"$0\" checkpoint convert \"$@\"",
        ])
        .arg(longhaul_tests::build::longhaul())
        .args([&workspace().join("tests/gguf/llama.gguf"), &folder])
        .output()
        .expect("bash starts");
    let said = String::from_utf8_lossy(&limited.stderr);
    assert_eq!(limited.status.code(), Some(3), "{said}");
    assert!(said.contains("cannot write"), "{said}");
    let left = std::fs::read_dir(out.path()).expect("readable").count();
    assert_eq!(left, 2, "only the two files");
}
