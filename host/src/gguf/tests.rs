//! Reading GGUF: every format against ggml's own package, and files that lie. `tests/gguf/make.py` made the files.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use safetensors::tensor::View;
use safetensors::{Dtype, SafeTensors};

use super::blocks::Block;
use super::config::Llama;
use super::file::Gguf;
use super::tensors::moved;
use super::tokenizer;
use crate::checkpoint::files::FileError;

fn fixture(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/gguf");
    std::fs::read(folder.join(name)).expect("a file of make.py")
}

#[test]
fn blocks_are_decoded_as_ggml_decodes_them() {
    let bytes = fixture("blocks.safetensors");
    let tensors = SafeTensors::deserialize(&bytes).expect("whole");
    let formats = [0, 1, 2, 3, 6, 7, 8, 10, 11, 12, 13, 14, 30];
    assert_eq!(tensors.len(), 2 * formats.len());
    for code in formats {
        let format = Block::of(code).expect("a format that is read");
        let stored = tensors.tensor(&format!("{}.bytes", format.name));
        let expected = tensors.tensor(&format!("{}.values", format.name));
        let (stored, expected) = (stored.expect("there"), expected.expect("there"));
        let words = expected.data().as_chunks::<4>().0.iter();
        let expected: Vec<f32> = words.map(|word| f32::from_le_bytes(*word)).collect();
        let mut values = vec![f32::NAN; expected.len()];
        format.decode(stored.data(), &mut values);
        assert_eq!(values, expected, "{}", format.name);
    }
}

/// All of a conversion but the writing.
fn read(bytes: &[u8]) -> Result<(), FileError> {
    let path = PathBuf::from("some.gguf");
    let gguf = Gguf::read(&path, bytes)?;
    let llama = Llama::read(&gguf)?;
    llama.config(&gguf, "float32")?;
    tokenizer::read(&gguf, llama.vocab)?;
    let fault = RefCell::default();
    for (_, tensor) in moved(&gguf, &llama, Dtype::F16, &fault)? {
        assert_eq!(tensor.data().len(), tensor.data_len());
    }
    Ok(())
}

/// xorshift64.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }
}

#[test]
fn no_mutation_makes_it_panic() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let words = [
        0,
        1,
        9,
        1 << 31,
        (1 << 32) - 1,
        1 << 40,
        u64::MAX,
        u64::MAX - 31,
    ];
    for name in ["llama.gguf", "pieces.gguf"] {
        let whole = fixture(name);
        read(&whole).expect("a whole file");
        // The header is what is read into; most of the rest are values, of which any is one.
        let header = whole.len() / 4;
        for _ in 0..1500 {
            let mut bytes = whole.clone();
            for _ in 0..=random.below(3) {
                let at = random.below(header);
                match random.below(4) {
                    0 => bytes[at] ^= 1 << random.below(8),
                    1 => bytes[at] = random.below(256) as u8,
                    2 => {
                        let word = words[random.below(words.len())].to_le_bytes();
                        bytes[at..at + 8].copy_from_slice(&word);
                    }
                    _ => bytes.truncate(random.below(whole.len())),
                }
                if bytes.len() <= header + 8 {
                    break;
                }
            }
            if let Err(error) = read(&bytes) {
                assert!(error.to_string().starts_with("some.gguf: "), "{error}");
            }
        }
    }
}

/// A text as GGUF has it.
fn text(words: &str) -> Vec<u8> {
    let mut bytes = (words.len() as u64).to_le_bytes().to_vec();
    bytes.extend(words.as_bytes());
    bytes
}

/// The bytes at the first place where `before` is followed by anything.
fn after(bytes: &[u8], before: &str) -> usize {
    let mark = text(before);
    let place = bytes.windows(mark.len()).position(|window| window == mark);
    place.expect("it is there") + mark.len()
}

#[test]
fn lies_are_named() {
    let whole = fixture("llama.gguf");
    let refused = |change: &dyn Fn(&mut Vec<u8>), parts: &[&str]| {
        let mut bytes = whole.clone();
        change(&mut bytes);
        let message = read(&bytes).expect_err("refused").to_string();
        for part in parts.iter().chain(&["some.gguf: "]) {
            assert!(message.contains(part), "`{part}` is not in: {message}");
        }
    };
    let put = |bytes: &mut Vec<u8>, at: usize, new: &[u8]| {
        bytes[at..at + new.len()].copy_from_slice(new);
    };
    refused(&|b| b.truncate(b.len() - 40), &["tensor `", "cut short"]);
    refused(
        &|b| b.truncate(900),
        &["key `tokenizer.ggml.tokens`", "cut short"],
    );
    refused(&|b| b[0] = b'X', &["no GGUF file"]);
    refused(&|b| put(b, 4, &1u32.to_le_bytes()), &["version 1"]);
    refused(&|b| put(b, 4, &3u32.to_be_bytes()), &["big-endian"]);
    refused(
        &|b| put(b, 8, &u64::MAX.to_le_bytes()),
        &["tensors", "at most"],
    );
    let q = "blk.0.attn_q.weight";
    // Dimensions, two sizes, type, offset.
    let field = |offset: usize| after(&whole, q) + offset;
    refused(
        &|b| put(b, field(0), &9u32.to_le_bytes()),
        &[q, "9 dimensions"],
    );
    refused(
        &|b| put(b, field(4), &u64::MAX.to_le_bytes()),
        &[q, "cannot be"],
    );
    refused(&|b| put(b, field(12), &64u64.to_le_bytes()), &["`blk.0."]);
    refused(
        &|b| put(b, field(20), &23u32.to_le_bytes()),
        &[q, "IQ4_XS", "Q4_K"],
    );
    refused(
        &|b| put(b, field(20), &77u32.to_le_bytes()),
        &[q, "type 77"],
    );
    refused(
        &|b| put(b, field(24), &1u64.to_le_bytes()),
        &[q, "no multiple of 32"],
    );
    refused(
        &|b| put(b, field(24), &(1u64 << 50).to_le_bytes()),
        &[q, "cut short or its offset"],
    );
    refused(
        &|b| put(b, field(24), &0u64.to_le_bytes()),
        &[q, "over each other"],
    );
    // A value's type, then itself.
    let number = |key: &'static str, value: u32| {
        move |b: &mut Vec<u8>| {
            let at = after(b, key) + 4;
            b[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
    };
    for (key, value, expected) in [
        (
            "llama.block_count",
            1 << 30,
            "`llama.block_count` should be a whole number from 1 to 1024",
        ),
        ("llama.block_count", 3, "blk.2.attn_q.weight"),
        (
            "llama.feed_forward_length",
            32,
            "tensor `blk.0.ffn_gate.weight` is of shape [64, 32]",
        ),
        (
            "llama.embedding_length",
            64,
            "`llama.rope.dimension_count` should be 16",
        ),
        (
            "llama.attention.head_count",
            0,
            "head_count` should be a whole number from 1",
        ),
        ("llama.attention.head_count_kv", 3, "cannot be"),
        (
            "llama.rope.dimension_count",
            4,
            "rope.dimension_count` should be 8, the width of a head",
        ),
        (
            "tokenizer.ggml.bos_token_id",
            300,
            "bos_token_id` should be a whole number from 0 to 299",
        ),
    ] {
        refused(&number(key, value), &[expected]);
    }
    let word = |key: &'static str, value: &'static str| {
        move |b: &mut Vec<u8>| {
            let at = after(b, key) + 12;
            b[at..at + value.len()].copy_from_slice(value.as_bytes());
        }
    };
    let architecture = "general.architecture";
    refused(
        &word(architecture, "qwen2"),
        &[architecture, "`qwen2`", "llama"],
    );
    refused(
        &word("tokenizer.ggml.model", "bert"),
        &["tokenizer.ggml.model", "`bert`"],
    );
    refused(
        &word("tokenizer.ggml.pre", "tekken"),
        &["tokenizer.ggml.pre", "`tekken`", "smollm"],
    );
    // Keys become others of the same length.
    let rename = |old: &'static str, new: &'static str| {
        move |b: &mut Vec<u8>| {
            let at = after(b, old) - new.len();
            b[at..at + new.len()].copy_from_slice(new.as_bytes());
        }
    };
    refused(
        &rename("llama.context_length", "llama.kontext_length"),
        &["`llama.kontext_length`"],
    );
}
