//! Tokenizers held against those who defined them, and files that are none.

use std::path::{Path, PathBuf};

use longhaul_text::{Bytes, TextError, TokenIndex, Tokenizer, fits, tokenizer_of};
use serde_json::{Value, json};

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
        assert_eq!(tokenizer.encode(text).expect("tokens"), ids, "{text:?}");
        assert_eq!(
            tokenizer.decode(&ids).expect("a text"),
            case["decoded"].as_str().expect("a text")
        );
    }
    assert!(tokenizer.id().starts_with("json-") && tokenizer.id().len() == 5 + 64);
    assert_eq!(tokenizer.vocab(), 340);
    // The definition puts <s> in front, and the file beside it names </s>.
    assert_eq!((tokenizer.bos(), tokenizer.stops()), (Some(0), &[1][..]));
}

/// Where a token ends there is as much of the text as its tokens up to there decode to, unless it ends inside a
/// character.
#[test]
fn tokens_say_where_they_end_in_the_text() {
    let folder = tempfile::tempdir().expect("a folder");
    let lines = world(&["' a' 2", r"b'\x97\xa5' 2"]);
    std::fs::write(folder.path().join("rwkv_vocab_small.txt"), lines).expect("a file");
    let world = tokenizer_of(folder.path()).expect("a vocabulary");
    let bpe = tokenizer_of(&fixture("bpe")).expect("a tokenizer");
    let long = "The dog – naïve – 🦀🦀  and 日本,\n\n green\u{301} </s> grass \t";
    for (tokenizer, text) in [
        (&Bytes as &dyn Tokenizer, long),
        (bpe.as_ref(), long),
        (world.as_ref(), "a 日 an日"),
    ] {
        let pairs = tokenizer.encode_with_ends(text).expect("tokens");
        let tokens: Vec<u32> = pairs.iter().map(|&(token, _)| token).collect();
        assert_eq!(tokens, tokenizer.encode(text).expect("tokens"));
        let mut inside = 0;
        for (place, &(_, end)) in pairs.iter().enumerate() {
            // A special token is left out of what is decoded.
            let decoded = tokenizer.decode(&tokens[..=place]).expect("a text");
            if decoded.contains('\u{fffd}') || text[..end].contains("</s>") {
                inside += 1;
                continue;
            }
            assert_eq!(decoded, text[..end], "{} {place}", tokenizer.id());
        }
        assert!(
            inside > 0 && inside < pairs.len() * 2 / 3,
            "{inside} of {}",
            pairs.len()
        );
        assert_eq!(pairs.last().expect("some").1, text.len());
    }
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
        r#"{"eos_token_id": 7, "time_step_limit": [0.0, Infinity]}"#,
    );
    let tokenizer = tokenizer_of(folder.path()).expect("a tokenizer");
    assert_eq!((tokenizer.bos(), tokenizer.stops()), (None, &[1, 5, 7][..]));
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
            let tokens = tokenizer.encode("The grass is green.").unwrap_or_default();
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

/// The fixture's definition with other values at some places.
fn changed(changes: &[(&str, Value)]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let text = std::fs::read_to_string(fixture("bpe/tokenizer.json")).expect("a file");
    let mut definition: Value = serde_json::from_str(&text).expect("JSON");
    for (place, value) in changes {
        *definition.pointer_mut(place).expect("a place") = value.clone();
    }
    let path = folder.path().join("tokenizer.json");
    std::fs::write(&path, definition.to_string()).expect("a file");
    (folder, path)
}

#[test]
fn what_is_put_behind_a_text_does_not_stand_in_front() {
    let template = |single: &str| {
        let special = |id: u32, token: &str| json!({"id": token, "ids": [id], "tokens": [token]});
        let part = |word: &str| match word {
            "A" => json!({"Sequence": {"id": "A", "type_id": 0}}),
            token => json!({"SpecialToken": {"id": token, "type_id": 0}}),
        };
        json!({
            "type": "TemplateProcessing",
            "single": single.split(' ').map(part).collect::<Vec<_>>(),
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": special(0, "<s>"), "</s>": special(1, "</s>")},
        })
    };
    for (single, bos) in [("A </s>", None), ("<s> A </s>", Some(0)), ("A", None)] {
        let (_folder, path) = changed(&[("/post_processor", template(single))]);
        assert_eq!(tokenizer_of(&path).expect(single).bos(), bos, "{single}");
    }
    let (_folder, path) = changed(&[("/post_processor", template("<s> <s> A"))]);
    assert!(refusal(&path).contains("puts 2 tokens in front"));
}

#[test]
fn a_definition_that_does_not_say_one_thing_of_every_text_is_refused() {
    let (_folder, path) = changed(&[("/model/dropout", json!(0.1))]);
    assert!(refusal(&path).contains("`model.dropout` is 0.1"));
    let (_folder, path) = changed(&[("/model/dropout", json!(0.0))]);
    assert!(tokenizer_of(&path).is_ok());
}

#[test]
fn no_byte_of_a_text_is_left_out() {
    // Published vocabularies lack control characters; here it is a letter.
    let text = std::fs::read_to_string(fixture("bpe/tokenizer.json")).expect("a file");
    let mut definition: Value = serde_json::from_str(&text).expect("JSON");
    let model = &mut definition["model"];
    let vocab = model["vocab"].as_object_mut().expect("an object");
    vocab.retain(|token, _| !token.contains('z'));
    let merges = model["merges"].as_array_mut().expect("a list");
    merges.retain(|merge| !merge.to_string().contains('z'));
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("tokenizer.json");
    std::fs::write(&path, definition.to_string()).expect("a file");
    let tokenizer = tokenizer_of(&path).expect("a tokenizer");
    let every: String = ('\0'..'z').chain('{'..='\u{900}').collect();
    let tokens = tokenizer.encode(&every).expect("all but z");
    assert_eq!(tokenizer.decode(&tokens).expect("a text"), every);
    let error = tokenizer.encode("a lazy dog").expect_err("no token for z");
    assert!(
        error.to_string().contains("no token for the byte 0x7a"),
        "{error}"
    );
}

#[test]
fn a_text_that_has_no_tokens_is_an_error() {
    let words = json!({"type": "WordLevel", "vocab": {"fox": 0, "[UNK]": 1}, "unk_token": "none"});
    let (_folder, path) = changed(&[
        ("/model", words),
        ("/pre_tokenizer", json!({"type": "Whitespace"})),
        ("/post_processor", Value::Null),
        ("/added_tokens", json!([])),
    ]);
    let tokenizer = tokenizer_of(&path).expect("a tokenizer");
    assert_eq!(tokenizer.encode("fox fox").expect("tokens"), [0, 0]);
    let error = tokenizer
        .encode("fox and fox")
        .expect_err("no token for `and`");
    assert!(
        error.to_string().contains("cannot encode \"fox and fox\""),
        "{error}"
    );
}

#[test]
fn tokens_that_are_no_text_are_an_error() {
    // It takes a letter off both ends of a token, and this token is one letter.
    let strip = json!({"type": "Strip", "content": "\u{120}", "start": 1, "stop": 1});
    let (_folder, path) = changed(&[("/decoder", strip)]);
    let tokenizer = tokenizer_of(&path).expect("a tokenizer");
    let tokens = tokenizer.encode("fox").expect("tokens");
    assert_eq!(tokenizer.decode(&tokens).expect("a text"), "fox");
    let space = tokenizer.encode(" ").expect("a token");
    let error = tokenizer.decode(&space).expect_err("no text").to_string();
    let told = format!("cannot decode the 1 tokens {}", space[0]);
    assert!(
        error.contains(&told) && error.contains("`decoder`"),
        "{error}"
    );
}

#[test]
fn words_have_the_tokens_that_they_have_in_a_text() {
    let tokenizer = tokenizer_of(&fixture("bpe/tokenizer.json")).expect("a tokenizer");
    for word in ["fox", "a", "zzyzx", "QUICK", "internationalisation", "..."] {
        for (spaced, front) in [(true, "x "), (false, "x\n")] {
            let encode = |text: &str| tokenizer.encode(text).expect("tokens");
            let own = tokenizer.word(word, spaced).expect("words are known");
            let before = encode(front.trim_end_matches(' '));
            assert_eq!(
                [before, own].concat(),
                encode(&format!("{front}{word}")),
                "{front}{word}"
            );
        }
    }
    // Words that are not taken as a whole are read in texts.
    let (_folder, path) = changed(&[("/normalizer", json!({"type": "Lowercase"}))]);
    let other = tokenizer_of(&path).expect("a tokenizer");
    assert_eq!(other.word("fox", true), None);
}

/// The form of BlinkDL/RWKV-LM's file: all bytes, and some tokens more.
fn world(more: &[&str]) -> String {
    let byte = |byte: u8| match byte {
        b'\n' => "'\\n'".to_owned(),
        b'\'' => "\"'\"".to_owned(),
        b'\\' => "'\\\\'".to_owned(),
        0x20..0x7f => format!("'{}'", char::from(byte)),
        0..0x80 => format!("'\\x{byte:02x}'"),
        _ => format!("b'\\x{byte:02x}'"),
    };
    let bytes = (0..=255).map(|value| format!("{} {} 1\n", u32::from(value) + 1, byte(value)));
    let more = more
        .iter()
        .zip(257..)
        .map(|(token, id)| format!("{id} {token}\n"));
    bytes.chain(more).collect()
}

#[test]
fn a_world_vocabulary_takes_the_longest_token() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("rwkv_vocab_small.txt");
    let lines = world(&["'ab' 2", r"b'\x97\xa5' 2", "'日' 3"]);
    std::fs::write(&file, &lines).expect("a file");
    let world = tokenizer_of(folder.path()).expect("a vocabulary");
    assert_eq!(
        world.encode("abca 日\n").expect("tokens"),
        [257, 100, 98, 33, 259, 11]
    );
    let decode = |tokens: &[u32]| world.decode(tokens).expect("a text");
    assert_eq!(decode(&[257, 100, 98, 33, 259, 11]), "abca 日\n");
    assert_eq!(decode(&[0xe7, 258, 0]), "日");
    assert_eq!(decode(&[98, 0xe7, 99]), "a\u{fffd}b");
    assert_eq!((world.vocab(), world.stops()), (260, &[0][..]));
    for wrong in ["1 'a' 1\n3 'b' 1\n", "1 a 1\n", "1 'ab' 1\n", "", "1 'a'\n"] {
        std::fs::write(&file, wrong).expect("a file");
        assert!(refusal(&file).contains("no world vocabulary"), "{wrong}");
    }
    for (line, byte) in [("'z' 1", 0x7a), (r"b'\xc3' 1", 0xc3), (r"'\n' 1", 0x0a)] {
        let without = lines.replacen(&format!(" {line}\n"), " 'zz' 2\n", 1);
        std::fs::write(&file, without).expect("a file");
        let said = refusal(&file);
        assert!(
            said.contains(&format!("the byte 0x{byte:02x} alone")),
            "{said}"
        );
    }
}

/// A text of what pre-tokenizers tell apart, drawn anew for each seed.
fn random_text(seed: u64, parts: usize) -> String {
    const PARTS: [&str; 40] = [
        "a", "fox", "The", "quick", "é", "e\u{301}", "日本", "🦀", "ß", "İ", " ", "  ", "   ",
        "\n", "\n\n", "\r\n", "\t", "\u{a0}", "\u{3000}", "7", "123", "٣", "½", ".", "...", "'s",
        "'S", "'", "’t", "-", "_", "(", "<s>", "</s>", " </s> ", "<", "#1", "\u{200d}", "\u{0}",
        "dog the",
    ];
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut text = String::new();
    for _ in 0..parts {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        text.push_str(PARTS[(state >> 33) as usize % PARTS.len()]);
    }
    text
}

/// The tokens of a text by pieces, and the number of pieces.
fn by_pieces(tokenizer: &dyn Tokenizer, text: &str, piece: usize) -> Option<(Vec<u32>, usize)> {
    let index = TokenIndex::new(tokenizer, text, piece).expect("tokens")?;
    let (mut tokens, mut pieces) = (Vec::new(), 0);
    while tokens.len() < index.len() {
        let piece = index.piece(tokens.len());
        assert_eq!(index.positions(piece).start, tokens.len());
        tokens.extend(tokenizer.encode(&text[index.bytes(piece)]).expect("tokens"));
        assert_eq!(index.positions(piece).end, tokens.len());
        pieces += 1;
    }
    Some((tokens, pieces))
}

/// Pieces against the whole, on texts that are cut at every place where a cut is said to be certain.
fn pieces_are_the_whole(name: &str, tokenizer: &dyn Tokenizer) {
    let (mut cut, texts) = (0, 300);
    for seed in 0..texts {
        let text = random_text(seed, 60);
        let whole = tokenizer.encode(&text).expect("tokens");
        for piece in [3, 17, 80] {
            let (tokens, pieces) = by_pieces(tokenizer, &text, piece).expect("short texts");
            assert_eq!(tokens, whole, "{name}, {piece} bytes: {text:?}");
            cut += pieces;
        }
    }
    assert!(cut > 10 * texts as usize, "{name}: only {cut} pieces");
}

#[test]
fn tokens_by_pieces_are_those_of_the_whole() {
    let split = |regex: &str| json!({"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false});
    let gpt2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
    let llama3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
    let byte_level = |regex: bool, prefix: bool| json!({"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": true, "use_regex": regex});
    let digits = json!({"type": "Digits", "individual_digits": true});
    let all = |stages: &[Value]| json!({"type": "Sequence", "pretokenizers": stages});
    let cases = [
        ("gpt-2", byte_level(true, false), Value::Null),
        ("prefix", byte_level(true, true), Value::Null),
        (
            "smollm",
            all(&[digits.clone(), split(gpt2), byte_level(false, false)]),
            Value::Null,
        ),
        (
            "starcoder",
            all(&[digits, byte_level(true, false)]),
            Value::Null,
        ),
        (
            "llama 3",
            all(&[split(llama3), byte_level(false, false)]),
            Value::Null,
        ),
        (
            "nfc",
            all(&[split(llama3), byte_level(false, false)]),
            json!({"type": "NFC"}),
        ),
        (
            "lowercase",
            byte_level(true, false),
            json!({"type": "Sequence", "normalizers": [{"type": "NFKD"}, {"type": "Lowercase"}]}),
        ),
    ];
    for (name, pre_tokenizer, normalizer) in cases {
        let changes = [
            ("/pre_tokenizer", pre_tokenizer),
            ("/normalizer", normalizer),
        ];
        let (_folder, path) = changed(&changes);
        pieces_are_the_whole(name, tokenizer_of(&path).expect(name).as_ref());
    }
    pieces_are_the_whole("bytes", &Bytes);
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("rwkv_vocab.txt");
    let more = [
        "' the' 4",
        "'fox  ' 5",
        "'日本' 6",
        r"b'\x97\xa5' 2",
        r"'\n\n' 2",
        "'dog the' 7",
    ];
    std::fs::write(&file, world(&more)).expect("a file");
    pieces_are_the_whole("world", tokenizer_of(&file).expect("world").as_ref());
}

#[test]
fn added_tokens_take_cuts_away_and_nothing_is_cut_unproven() {
    let added = |content: &str, key: &str| {
        let mut token = json!({
            "id": 340, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": false,
        });
        token[key] = true.into();
        token
    };
    let definition = std::fs::read_to_string(fixture("bpe/tokenizer.json")).expect("a file");
    let definition: Value = serde_json::from_str(&definition).expect("JSON");
    for (content, key) in [
        ("dog the", "normalized"),
        ("fox", "single_word"),
        ("The", "rstrip"),
        ("7", "lstrip"),
    ] {
        let mut tokens = definition["added_tokens"]
            .as_array()
            .expect("a list")
            .clone();
        tokens.push(added(content, key));
        let (_folder, path) = changed(&[("/added_tokens", tokens.into())]);
        pieces_are_the_whole(content, tokenizer_of(&path).expect(content).as_ref());
    }
    // Without a pre-tokenizer a merge may reach over any place, and possessive repetitions are not understood.
    let possessive = json!({"type": "Split", "pattern": {"Regex": r"\p{L}++|\s+"}, "behavior": "Isolated", "invert": false});
    for pre_tokenizer in [Value::Null, possessive] {
        let (_folder, path) = changed(&[("/pre_tokenizer", pre_tokenizer)]);
        let tokenizer = tokenizer_of(&path).expect("a tokenizer");
        let text = "the quick brown fox ".repeat(20);
        assert_eq!(tokenizer.certain(&text).expect("tokens"), None);
        assert!(by_pieces(tokenizer.as_ref(), &text.repeat(4000), 9).is_none());
    }
}
