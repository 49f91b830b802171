//! RULER's prompts in chat templates: the message that they would be without one, its tokens those of the whole text, no
//! BOS but the template's, and all of it inside the length.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use longhaul_tasks::ruler::{Questions, Ruler};
use longhaul_tasks::{Coordinates, Materials, Sample, Split, Task};
use longhaul_text::{Bytes, Chat, Tokenizer};

const NAMES: [&str; 4] = ["niah_single_2", "niah_multikey_2", "vt", "qa_1"];

fn at(length: usize) -> Coordinates {
    Coordinates {
        split: Split::Test,
        length,
        seed: 0,
        index: 1,
    }
}

fn text_fixture(name: &str) -> PathBuf {
    let text = Path::new(env!("CARGO_MANIFEST_DIR")).join("../text");
    text.join("tests/fixtures").join(name)
}

fn materials(tokenizer: Arc<dyn Tokenizer>) -> Materials {
    let squad = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ruler/squad.json");
    Materials {
        tokenizer,
        questions: vec![Arc::new(Questions::load(&squad).expect("questions"))],
        ..Materials::default()
    }
}

/// Holds a task in a chat template against the task without it.
fn hold(name: &str, plain: &Materials, chat: &Arc<Chat>) {
    let framed = Materials {
        chat: Some(Arc::clone(chat)),
        ..plain.clone()
    };
    let [plain, ruler] =
        [plain, &framed].map(|materials| Ruler::parse(name, materials).expect(name));
    let named = format!("chat_template={}", &chat.sha256[..12]);
    assert!(
        ruler.options_text().contains(&named),
        "{}",
        ruler.options_text()
    );
    assert!(!plain.options_text().contains("chat_template"));
    let least = ruler.min_length();
    assert!(least > plain.min_length(), "the template has a length");
    for length in [least, least + 777] {
        let example = ruler.example(&at(length)).expect(name);
        let mut input = String::new();
        example.text(&mut |some| input.push_str(some));
        let message = input
            .strip_prefix(&chat.before)
            .expect("the template's beginning");
        let message = message
            .strip_suffix(&chat.after)
            .expect("the template's end");
        assert_eq!(chat.turn(message), input);
        let (mut tokens, mut targets) = (vec![0; example.len()], vec![0; example.len()]);
        example.write(0, &mut tokens, &mut targets);
        let whole = format!("{input}{}", example.answer_prefix());
        let whole = framed.tokenizer.encode(&whole).expect("tokens");
        assert!(
            tokens == whole,
            "{name} at {length}: not the tokens of the whole"
        );
        assert!(example.length() <= length);
        if let Some(position) = example.answer_position() {
            let reference = &example.wanted().references[0];
            let place = input.find(&format!("is: {reference}")).expect("the needle") + 4;
            // The last token before it may end inside it, where one is of a space and what follows.
            let before = framed
                .tokenizer
                .encode(&input[..place])
                .expect("tokens")
                .len();
            assert!(
                position.abs_diff(before) <= 1,
                "{name}: {position}, {before}"
            );
        }
    }
}

#[test]
fn prompts_stand_in_a_chat_template() {
    // This one puts a BOS in front of a text by itself, <s>, which two of the templates write.
    let pairs = longhaul_text::tokenizer_of(&text_fixture("bpe")).expect("a tokenizer");
    assert_eq!(pairs.bos(), Some(0));
    let cases: [(Arc<dyn Tokenizer>, &str); 4] = [
        (Arc::clone(&pairs), "chatml"),
        (Arc::clone(&pairs), "llama2"),
        (pairs, "llama3"),
        (Arc::new(Bytes), "llama3"),
    ];
    for (tokenizer, form) in cases {
        let plain = materials(tokenizer);
        let chat = Chat::of_folder(&text_fixture("chat").join(form)).expect(form);
        for name in NAMES {
            hold(name, &plain, &Arc::new(chat.clone()));
        }
    }
}
