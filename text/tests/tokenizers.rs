//! Tokenizers held against those who defined them, and files that are none.

use std::path::{Path, PathBuf};

use longhaul_text::{Bytes, TextError, fits, tokenizer_of, with_bos};
use serde_json::Value;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name)
}

fn refusal(path: &Path) -> String {
    let error = tokenizer_of(path).err();
    let message = error.expect("it is none").to_string();
    assert!(message.contains(&path.display().to_string()), "{message}");
    message
}

/// Ids and texts of `tokenizers` 0.23 in Python, of the same tokenizer.json.
#[test]
fn ids_and_texts_are_those_of_the_reference() {
    let tokenizer = tokenizer_of(&fixture("bpe")).expect("a tokenizer");
    let expected = std::fs::read_to_string(fixture("bpe/expected.json")).expect("a file");
    let expected: Vec<Value> = serde_json::from_str(&expected).expect("a list");
    assert_eq!(expected.len(), 10);
    for case in expected {
        let text = case["text"].as_str().expect("a text");
        let ids = case["ids"].as_array().expect("ids").iter();
        let ids: Vec<u32> = ids.map(|id| id.as_u64().expect("an id") as u32).collect();
        assert_eq!(tokenizer.encode(text), ids, "{text:?}");
        assert_eq!(
            tokenizer.decode(&ids),
            case["decoded"].as_str().expect("a text")
        );
    }
    assert!(tokenizer.id().starts_with("json-") && tokenizer.id().len() == 5 + 64);
    assert_eq!(tokenizer.vocab(), 340);
    // The definition puts <s> in front, and the file beside it names </s>.
    assert_eq!((tokenizer.bos(), tokenizer.stops()), (Some(0), &[1][..]));
}

#[test]
fn one_token_stands_in_front() {
    let tokenizer = tokenizer_of(&fixture("bpe")).expect("a tokenizer");
    let tokens = tokenizer.encode("the dog");
    let once = with_bos(tokenizer.as_ref(), tokens.clone());
    assert_eq!((once[0], &once[1..]), (0, tokens.as_slice()));
    assert_eq!(with_bos(tokenizer.as_ref(), once.clone()), once);
    assert_eq!(with_bos(&Bytes, tokens.clone()), tokens);
}

#[test]
fn what_a_file_beside_says_goes_before_the_definition() {
    let folder = tempfile::tempdir().expect("a folder");
    let definition = folder.path().join("tokenizer.json");
    std::fs::copy(fixture("bpe/tokenizer.json"), &definition).expect("a copy");
    let with = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect(name);
    with(
        "tokenizer_config.json",
        r#"{"add_bos_token": false, "eos_token": "</s>"}"#,
    );
    with("generation_config.json", r#"{"eos_token_id": [5, 1]}"#);
    with(
        "config.json",
        r#"{"eos_token_id": null, "time_step_limit": [0.0, Infinity]}"#,
    );
    let tokenizer = tokenizer_of(folder.path()).expect("a tokenizer");
    assert_eq!((tokenizer.bos(), tokenizer.stops()), (None, &[1, 5][..]));
    with("generation_config.json", r#"{"eos_token_id": 340}"#);
    let error = tokenizer_of(folder.path())
        .err()
        .expect("no such token")
        .to_string();
    assert!(
        error.contains("340 tokens") && error.contains("eos_token_id"),
        "{error}"
    );
    with("generation_config.json", "{");
    let error = tokenizer_of(folder.path())
        .err()
        .expect("no JSON")
        .to_string();
    assert!(error.contains("generation_config.json"), "{error}");
}

#[test]
fn files_that_are_no_tokenizer_are_named() {
    let folder = tempfile::tempdir().expect("a folder");
    assert!(refusal(folder.path()).contains("no tokenizer.json"));
    assert!(refusal(&folder.path().join("gone.json")).contains("cannot read"));
    let whole = std::fs::read(fixture("bpe/tokenizer.json")).expect("a file");
    let file = folder.path().join("tokenizer.json");
    for text in [
        &b""[..],
        b"{}",
        b"[1]",
        b"\xff\xfe",
        &whole[..whole.len() / 2],
    ] {
        std::fs::write(&file, text).expect("a file");
        assert!(refusal(&file).contains("no tokenizer.json"));
    }
    // Damage anywhere: refused or read, never a panic.
    let mut random = 7_u64;
    let mut next = |below: usize| {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (random >> 33) as usize % below
    };
    for _ in 0..300 {
        let mut damaged = whole.clone();
        for _ in 0..1 + next(4) {
            let at = next(damaged.len());
            damaged[at] = b"0{}[]\",:x9-"[next(11)];
        }
        std::fs::write(&file, damaged).expect("a file");
        if let Ok(tokenizer) = tokenizer_of(&file) {
            let tokens = tokenizer.encode("The grass is green.");
            assert!(
                tokens
                    .iter()
                    .all(|&token| (token as usize) < tokenizer.vocab())
            );
        }
    }
}

#[test]
fn a_tokenizer_of_more_ids_than_the_model_has_is_refused() {
    assert!(fits(&Bytes, 256).is_ok());
    let error = fits(&Bytes, 255).expect_err("one id too many");
    assert!(matches!(error, TextError::Vocabulary { .. }));
    assert!(error.to_string().contains("`bytes` has 256"), "{error}");
}

/// The form of BlinkDL/RWKV-LM's file, with a few tokens.
#[test]
fn a_world_vocabulary_takes_the_longest_token() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("rwkv_vocab_small.txt");
    let lines = r"1 '\n' 1
2 'a' 1
3 'b' 1
4 'ab' 2
5 ' ' 1
6 b'\xe6' 1
7 b'\x97\xa5' 2
8 '日' 3
9 'c' 1
";
    std::fs::write(&file, lines).expect("a file");
    let world = tokenizer_of(folder.path()).expect("a vocabulary");
    assert_eq!(world.encode("abca 日\n"), [4, 9, 2, 5, 8, 1]);
    assert_eq!(world.decode(&[4, 9, 2, 5, 8, 1]), "abca 日\n");
    assert_eq!(world.decode(&[6, 7, 0]), "日");
    assert_eq!(world.decode(&[2, 6, 3]), "a\u{fffd}b");
    assert_eq!((world.vocab(), world.stops()), (10, &[0][..]));
    for wrong in ["1 'a' 1\n3 'b' 1\n", "1 a 1\n", "1 'ab' 1\n", "", "1 'a'\n"] {
        std::fs::write(&file, wrong).expect("a file");
        assert!(refusal(&file).contains("no world vocabulary"), "{wrong}");
    }
}
