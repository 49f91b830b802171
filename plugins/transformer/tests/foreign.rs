//! Held to what fla's and transformers' layers compute: `tests/foreign/attention.py` makes the fixtures.

use longhaul_plugin_kit::testing_foreign::check_foreign;
use longhaul_transformer::{differential, fox, gated, path};

#[test]
fn fox_of_fla_with_and_without_an_output_gate() {
    check_foreign(&fox(), include_str!("foreign/fox.json"));
}

/// Three layers, as lambda starts from the layer.
#[test]
fn differential_attention_of_transformers() {
    let fixture = include_str!("foreign/differential.json");
    check_foreign(&differential(), fixture);
}

#[test]
fn gated_attention_of_transformers() {
    check_foreign(&gated(), include_str!("foreign/gated-attention.json"));
}

/// With and without all that is optional: ranks, convolutions, norms, groups and forget gates.
#[test]
fn path_attention_of_fla() {
    check_foreign(&path(), include_str!("foreign/path.json"));
}
