//! Chat templates held against what transformers makes of the same (`fixtures/chat/make.py`), and ones that cannot be used.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use longhaul_text::Chat;
use serde_json::json;

fn fixture(name: &str) -> PathBuf {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/chat");
    fixtures.join(name)
}

#[test]
fn prompts_are_those_of_transformers() {
    for (name, trims) in [("chatml", false), ("llama2", true), ("llama3", true)] {
        let folder = fixture(name);
        let chat = Chat::of_folder(&folder).expect(name);
        assert_eq!(chat.trims, trims, "{name}");
        let expected = std::fs::read_to_string(folder.join("expected.json")).expect("a file");
        let expected: BTreeMap<String, String> = serde_json::from_str(&expected).expect("texts");
        assert_eq!(expected.len(), 4);
        for (message, text) in expected {
            assert_eq!(chat.turn(&message), text, "{name}");
        }
    }
}

#[test]
fn a_template_is_known_by_the_hash_of_its_text() {
    let hash = |name: &str| Chat::of_folder(&fixture(name)).expect(name).sha256;
    // As `sha256sum` says of the file.
    assert_eq!(
        hash("llama3"),
        longhaul_text::sha256_of(
            &std::fs::read(fixture("llama3/chat_template.jinja")).expect("a file")
        )
    );
    assert_ne!(hash("chatml"), hash("llama2"));
}

#[test]
fn what_cannot_be_used_is_named() {
    let refusal = |config: serde_json::Value| {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(
            folder.path().join("tokenizer_config.json"),
            config.to_string(),
        )
        .expect("a file");
        let error = Chat::of_folder(folder.path()).expect_err("it cannot be used");
        let said = error.to_string();
        assert!(
            said.contains("tokenizer_config.json") && said.contains("chat_template"),
            "{said}"
        );
        said
    };
    let of = |template: &str| refusal(json!({"bos_token": "<s>", "chat_template": template}));
    assert!(refusal(json!({})).contains("ask for none"));
    assert!(refusal(json!({"chat_template": 7})).contains("neither a text"));
    assert!(
        refusal(json!({"chat_template": [{"name": "tools", "template": ""}]}))
            .contains("`default`")
    );
    assert!(of("{% for m in messages %}").contains("cannot be used"));
    assert!(of("{{ raise_exception('only in pairs') }}").contains("only in pairs"));
    assert!(of("no message").contains("once, as it is"));
    assert!(of("{{ messages[0].content }}{{ messages[0].content }}").contains("once, as it is"));
    assert!(of("{{ messages[0].content | lower }}").contains("once, as it is"));
    assert!(of("{{ messages[0].content | replace('\\n', ' ') }}").contains("white space"));
    assert!(of("{{ bos_token }}<s>{{ messages[0].content }}").contains("the BOS `<s>` twice"));
    assert!(
        of("{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}")
            .contains("fuel")
    );
    let gone = Chat::of_folder(&fixture("gone"))
        .expect_err("no folder")
        .to_string();
    assert!(gone.contains("gone/tokenizer_config.json"), "{gone}");
}
