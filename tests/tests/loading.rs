//! Every way in which opening a library, or a call into it, can fail: each is its own clear error.

use std::fs;
use std::path::Path;

use longhaul_plugin_api::abi::{ABI_GENERATION, API_VERSION, TARGET};
use longhaul_plugin_api::data::{Batch, Logits, TrainConfig};
use longhaul_plugin_api::error::ErrorKind;
use longhaul_plugin_api::load::LoadError;
use longhaul_plugin_api::metadata::{DESCRIBING_FAILED, pair};
use longhaul_tests::build::{faulty, fixture};
use longhaul_tests::in_process::{
    LENGTH, ROWS, VOCAB, assert_says, build_model, exercise, failure, opened, refusal, sequences,
    value,
};

#[test]
fn panics_and_bad_values_arrive_as_errors_and_the_library_stays_usable() {
    let module = opened(&faulty());
    let (tokens, targets) = sequences();
    let batch = Batch::new(&tokens, &targets, ROWS, LENGTH);
    let step = |fault: &str| {
        let mut model = value(build_model(module, fault));
        value(model.begin_training(TrainConfig::default()));
        refusal(model.train_step(batch, 0))
    };
    let panic = step("panic-in-train-step");
    assert_eq!(panic.kind, ErrorKind::Internal);
    assert_says(
        panic.message.as_str(),
        &["panic at tests/faulty/src/fault.rs:", "as asked"],
    );
    let loss = step("nan-loss");
    assert_eq!(loss.kind, ErrorKind::Numeric);
    assert_says(loss.message.as_str(), &["NaN", "was not written"]);
    assert_eq!(step("out-of-memory").kind, ErrorKind::OutOfMemory);
    assert_eq!(
        refusal(build_model(module, "error-in-build")).kind,
        ErrorKind::BadOption
    );
    let panic = refusal(build_model(module, "panic-in-build"));
    assert_says(
        panic.message.as_str(),
        &["panic at tests/faulty/src/fault.rs:"],
    );

    let mut model = value(build_model(module, "none"));
    let short = Batch::new(&tokens[1..], &targets, ROWS, LENGTH);
    let error = refusal(model.train_step(short, 0));
    assert_eq!(error.kind, ErrorKind::BadOption);
    assert_says(error.message.as_str(), &["2 rows", "7 tokens", "13 tokens"]);
    let error = refusal(value(model.new_session(ROWS)).feed(
        Batch::new(&[VOCAB as u32; ROWS * LENGTH], &targets, ROWS, LENGTH),
        Logits::None,
    ));
    assert_says(error.message.as_str(), &["token 11", "vocabulary of 11"]);
    exercise(&mut model);
}

#[test]
fn a_missing_file_is_named() {
    let (error, words) = failure(Path::new("/nowhere/liblonghaul_x.so"));
    assert!(matches!(error, LoadError::Missing { .. }));
    assert_says(
        &words,
        &[
            "/nowhere/liblonghaul_x.so",
            "does not exist",
            "build the plugin",
        ],
    );
}

#[test]
fn what_is_not_a_library_is_named_with_the_loaders_words() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let text = folder.path().join("liblonghaul_text.so");
    fs::write(&text, "This is a letter, not a library.\n".repeat(100)).expect("writable");
    let (error, words) = failure(&text);
    assert!(matches!(error, LoadError::NotALibrary { .. }));
    assert_says(
        &words,
        &[
            "liblonghaul_text.so",
            "not a shared library",
            "invalid ELF header",
        ],
    );

    let cut = folder.path().join("liblonghaul_cut.so");
    let whole = fs::read(faulty()).expect("readable");
    fs::write(&cut, &whole[..100]).expect("writable");
    let (error, words) = failure(&cut);
    assert!(matches!(error, LoadError::NotALibrary { .. }));
    assert_says(&words, &["liblonghaul_cut.so", "not a shared library"]);

    let (error, _) = failure(folder.path());
    assert!(matches!(error, LoadError::NotALibrary { .. }), "a folder");
}

#[test]
fn a_library_that_is_no_plugin_is_told_what_it_lacks() {
    let (error, words) = failure(&fixture("no_probe"));
    assert!(matches!(error, LoadError::NotAPlugin { .. }));
    assert_says(
        &words,
        &[
            "libno_probe.so",
            "not a Longhaul plugin",
            "export macro",
            "cdylib",
        ],
    );
}

#[test]
fn other_generations_name_both_versions_and_the_remedy() {
    let here =
        format!("this host has generation {ABI_GENERATION} (longhaul-plugin-api {API_VERSION})");
    let (error, words) = failure(&fixture("older_generation"));
    assert!(matches!(error, LoadError::Generation { generation: 0, .. }));
    let parts = [
        "an older ABI, generation 0",
        "longhaul-plugin-api 0.9.3",
        "Rebuild the plugin",
    ];
    assert_says(&words, &[&parts[..], &[&here]].concat());

    let (error, words) = failure(&fixture("newer_generation"));
    assert!(matches!(
        error,
        LoadError::Generation { generation: 99, .. }
    ));
    let parts = [
        "a newer ABI, generation 99",
        "longhaul-plugin-api 99.1.0",
        "Update the host",
    ];
    assert_says(&words, &[&parts[..], &[&here]].concat());
}

#[test]
fn another_machines_library_names_both_targets() {
    let (error, words) = failure(&fixture("other_target"));
    assert!(matches!(error, LoadError::Target { .. }));
    assert_says(
        &words,
        &["riscv64-linux", &format!("this host is {TARGET}")],
    );
}

#[test]
fn a_probe_without_a_root_module_and_a_failing_start_are_told_apart() {
    let (error, words) = failure(&fixture("no_root_module"));
    assert!(matches!(error, LoadError::NoRootModule { .. }));
    assert_says(&words, &["no root module", API_VERSION, "stripped"]);

    let (error, words) = failure(&fixture("start_up_fails"));
    assert!(matches!(error, LoadError::StartUp { .. }), "{error:?}");
    assert_says(
        &words,
        &[
            "libstart_up_fails.so",
            "failed while giving its root module",
        ],
    );
}

#[test]
fn a_panic_while_describing_gives_an_empty_description() {
    let module = opened(&fixture("panics_describing"));
    let info = module.describe()();
    assert!(info.name.is_empty() && info.architectures.is_empty());
    let why = pair(&info.extra, DESCRIBING_FAILED).expect("why there is none");
    assert_says(why, &["panics_describing.rs:", "at a loss for words"]);
}

#[test]
fn a_library_describes_itself_without_being_trusted() {
    let info = opened(&fixture("wrong_metadata")).describe()();
    let option = &info.architectures[0].options[0];
    let default = option.kind.default_value().to_string();
    let words = option.parse(&default).expect_err("outside its own limits");
    assert_says(&words, &["`state`", "integer 1..64", "`4096`"]);
}
