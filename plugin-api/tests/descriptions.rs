//! What a library may not say of itself: each contradiction is refused by name.

#![cfg(feature = "load")]

use longhaul_plugin_api::abi_stable::std_types::{RString, Tuple2};
use longhaul_plugin_api::client::check_description;
use longhaul_plugin_api::metadata::{
    ArchitectureInfo, DESCRIBING_FAILED, Family, LibraryInfo, OptionKind, OptionSpec, RESERVED,
    StateGrowth,
};

fn option(name: &str, kind: OptionKind) -> OptionSpec {
    OptionSpec {
        name: name.into(),
        help: "an option".into(),
        kind,
    }
}

fn number(default: f64, min: f64, max: f64) -> OptionKind {
    OptionKind::Float { default, min, max }
}

fn architecture(name: &str, options: Vec<OptionSpec>) -> ArchitectureInfo {
    ArchitectureInfo {
        name: name.into(),
        title: "a title".into(),
        family: Family::Rnn,
        citation: "@misc{a}".into(),
        options: options.into(),
        state_growth: StateGrowth::Constant,
        devices: vec!["cpu".into()].into(),
        capabilities: Vec::new().into(),
        extra: Vec::new().into(),
    }
}

fn library(architectures: Vec<ArchitectureInfo>) -> LibraryInfo {
    LibraryInfo {
        name: "longhaul-mine".into(),
        version: "0.1.0".into(),
        licence: "MIT".into(),
        authors: vec![RString::from("Me")].into(),
        architectures: architectures.into(),
        extra: Vec::new().into(),
    }
}

/// The refusal of a library whose one architecture has one option.
fn refused(name: &str, kind: OptionKind) -> String {
    let one = library(vec![architecture("mine", vec![option(name, kind)])]);
    check_description(&one).expect_err("it is refused")
}

#[test]
fn names_that_mean_something_else_are_refused() {
    let good = option("heads.of_2", number(1.0, 0.0, 2.0));
    check_description(&library(vec![architecture("mine", vec![good])])).expect("it is good");
    for name in RESERVED {
        let words = refused(name, number(1.0, 0.0, 2.0));
        assert!(
            words.contains(&format!("`{name}`")) && words.contains("every model"),
            "{words}"
        );
    }
    for name in ["", "a=b", "a,b", "a b", "a:b", "a/b", "a\tb"] {
        let words = refused(name, number(1.0, 0.0, 2.0));
        assert!(words.contains("an option of `mine` named"), "{words}");
    }
}

#[test]
fn defaults_and_limits_that_are_no_numbers_are_refused() {
    let nan = f64::NAN;
    for kind in [
        number(nan, 0.0, 1.0),
        number(0.5, nan, 1.0),
        number(0.5, 0.0, nan),
        number(3.0, 0.0, 1.0),
    ] {
        let words = refused("rate", kind);
        assert!(
            words.contains("`rate`") && words.contains("limits"),
            "{words}"
        );
    }
}

#[test]
fn two_of_a_name_are_refused() {
    let two = library(vec![
        architecture("mine", Vec::new()),
        architecture("mine", Vec::new()),
    ]);
    let words = check_description(&two).expect_err("two architectures");
    assert!(words.contains("two architectures named `mine`"), "{words}");
    let twice = vec![
        option("a", number(1.0, 0.0, 2.0)),
        option("a", number(1.0, 0.0, 2.0)),
    ];
    let words =
        check_description(&library(vec![architecture("mine", twice)])).expect_err("two options");
    assert!(words.contains("two options `a`"), "{words}");
}

#[test]
fn a_panic_while_describing_is_told() {
    let mut none = library(Vec::new());
    none.extra = vec![Tuple2(
        DESCRIBING_FAILED.into(),
        "panic at src/lib.rs:3:9: no".into(),
    )]
    .into();
    let words = check_description(&none).expect_err("no description");
    assert!(words.contains("src/lib.rs:3:9"), "{words}");
}
