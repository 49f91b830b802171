//! Tests of reading a config.

use super::*;
use crate::ops::rotary_scaling::{Scaling, Turns};

fn config(text: &str) -> Config {
    Config::parse(text).expect("JSON")
}

fn refusal<T>(result: Result<T>) -> String {
    match result {
        Ok(_) => panic!("accepted"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn reads_what_python_writes() {
    let config = config(r#"{"a": [0.0, Infinity], "b": "to \" Infinity", "c": NaN}"#);
    assert_eq!(config.value["a"][1], "Infinity");
    assert_eq!(config.value["b"], "to \" Infinity");
    assert_eq!(config.value["c"], "NaN");
}

#[test]
fn a_wrong_value_is_named_with_what_it_should_be() {
    let config = config(
        r#"{"heads": 0, "scaling": {"kind": "yarn"}, "none": null, "long": "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"}"#,
    );
    let message = refusal(config.size("heads"));
    assert!(
        message.contains("`heads`") && message.contains("from 1 to"),
        "{message}"
    );
    let message = refusal(config.size("width"));
    assert!(message.contains("no `width`"), "{message}");
    let message = refusal(config.expect_word("scaling.kind", &["default"]));
    assert!(
        message.contains("yarn") && message.contains("default"),
        "{message}"
    );
    assert!(refusal(config.size("long")).len() < 200);
    // Absent is the default; null is not.
    assert_eq!(config.size_or("absent", 7).unwrap(), 7);
    assert!(refusal(config.size_or("none", 7)).contains("`none`"));
    assert_eq!(config.optional_size("none", Some(7)).unwrap(), None);
    assert_eq!(config.optional_size("absent", Some(7)).unwrap(), Some(7));
}

#[test]
fn an_unlimited_time_step_is_the_only_one() {
    for text in [
        "{}",
        r#"{"time_step_limit": [0.0, Infinity]}"#,
        r#"{"time_step_limit": [0.0, {"__float__": "Infinity"}]}"#,
    ] {
        config(text).expect_free_time_step().unwrap();
    }
    for text in [
        r#"{"time_step_limit": [0.001, 0.1]}"#,
        r#"{"time_step_limit": [0.0, -Infinity]}"#,
        r#"{"time_step_limit": [0.0]}"#,
        r#"{"time_step_limit": null}"#,
        r#"{"time_step_limit": "none"}"#,
    ] {
        assert!(refusal(config(text).expect_free_time_step()).contains("time_step_limit"));
    }
}

#[test]
fn rotary_parameters_are_found_wherever_they_stand() {
    let default = Rotary::plain(10_000.0, 0.5);
    let read = |text: &str| {
        config(text)
            .rotary(default)
            .map(|rotary| (rotary.base, rotary.share))
    };
    for (text, expected) in [
        ("{}", (10_000.0, 0.5)),
        (r#"{"rope_theta": 50, "rope_scaling": null}"#, (50.0, 0.5)),
        (
            r#"{"rope_scaling": {"rope_theta": 50, "partial_rotary_factor": 1}}"#,
            (50.0, 1.0),
        ),
        (
            r#"{"rope_parameters": {"rope_theta": 50}, "rope_theta": 60}"#,
            (50.0, 0.5),
        ),
        (
            r#"{"rope_parameters": {}, "rope_theta": 60, "partial_rotary_factor": 0.25}"#,
            (60.0, 0.25),
        ),
    ] {
        assert_eq!(read(text).unwrap(), expected, "{text}");
    }
    for (text, key) in [
        (
            r#"{"rope_parameters": {"type": "dynamic", "factor": 4}}"#,
            "`rope_parameters.type`",
        ),
        (
            r#"{"rope_scaling": {"rope_type": "longrope"}}"#,
            "`rope_scaling.rope_type`",
        ),
        (
            r#"{"rope_parameters": {"full_attention": {"rope_theta": 5}}}"#,
            "`rope_parameters.full_attention`",
        ),
        (
            r#"{"rope_parameters": {"rope_theta": 5}, "rope_scaling": {"rope_theta": 6}}"#,
            "`rope_scaling`",
        ),
        (
            r#"{"rope_parameters": {"rope_theta": null}}"#,
            "`rope_parameters.rope_theta`",
        ),
        (r#"{"rope_theta": -1}"#, "`rope_theta`"),
        (r#"{"rope_parameters": "x"}"#, "`rope_parameters`"),
        (r#"{"rope_parameters": []}"#, "`rope_parameters`"),
        (r#"{"rope_parameters": NaN}"#, "`rope_parameters`"),
    ] {
        let message = refusal(read(text));
        assert!(message.contains(key), "{message}");
    }
    let fixed =
        config(r#"{"rope_scaling": {"partial_rotary_factor": 1}}"#).rotary_of_share(default);
    assert!(refusal(fixed).contains("`rope_scaling.partial_rotary_factor`"));
}

#[test]
fn a_scaling_of_rotary_angles_is_read_as_transformers_reads_it() {
    let read = |text: &str| {
        let rotary = config(text).rotary(Rotary::plain(10_000.0, 1.0));
        rotary.map(|rotary| rotary.scaling)
    };
    let turns = |original_length, fast, slow| Turns {
        original_length,
        fast,
        slow,
    };
    // The factor of the lengths, where there is no other; the config's own original length wins.
    let yarn = read(
        r#"{"max_position_embeddings": 64, "original_max_position_embeddings": 16,
            "rope_scaling": {"type": "yarn", "original_max_position_embeddings": 32, "beta_slow": null}}"#,
    );
    let expected = Scaling::Yarn {
        factor: 4.0,
        turns: turns(16.0, 32.0, 1.0),
        truncate: true,
        attention: 0.1 * 4f64.ln() + 1.0,
    };
    assert_eq!(yarn.unwrap(), expected);
    let llama3 = read(
        r#"{"max_position_embeddings": 64, "rope_parameters":
            {"rope_type": "llama3", "factor": 8, "low_freq_factor": 1, "high_freq_factor": 4}}"#,
    );
    let expected = Scaling::Llama3 {
        factor: 8.0,
        turns: turns(64.0, 4.0, 1.0),
    };
    assert_eq!(llama3.unwrap(), expected);
    for (text, key) in [
        (
            r#"{"rope_scaling": {"type": "linear"}}"#,
            "`rope_scaling.factor`",
        ),
        (
            r#"{"rope_scaling": {"type": "yarn", "factor": 2}}"#,
            "original_max_position_embeddings`",
        ),
        (
            r#"{"max_position_embeddings": 8, "rope_scaling": {"type": "llama3", "factor": 2}}"#,
            "`rope_scaling.high_freq_factor`",
        ),
        (
            r#"{"max_position_embeddings": 8, "rope_scaling": {"type": "yarn", "factor": 2, "beta_fast": 1}}"#,
            "`rope_scaling.beta_fast`",
        ),
    ] {
        let message = refusal(read(text));
        assert!(message.contains(key), "{message}");
    }
    let griffin = config(r#"{"rope_scaling": {"type": "linear", "factor": 2}}"#);
    let message = refusal(griffin.plain_rotary(Rotary::plain(10_000.0, 1.0)));
    assert!(message.contains("`rope_scaling.type`"), "{message}");
}

#[test]
fn every_key_is_accounted_for() {
    const FORMAT: &[Format] = &[Format {
        model_type: "x",
        harmless: &["chunk_size"],
        read: |config| Plan::new("x", config),
    }];
    let sizes = r#""model_type": "x", "vocab_size": 5, "hidden_size": 4, "num_hidden_layers": 1"#;
    let read = |more: &str| plan(FORMAT, "x", &format!("{{{sizes}, {more}}}"));
    let warnings = |more: &str| {
        let plan = read(more).unwrap();
        let warnings = longhaul_plugin_api::checkpoint::values(&plan.extra, WARNING);
        warnings.map(str::to_owned).collect::<Vec<_>>()
    };
    assert!(warnings(r#""chunk_size": 7, "use_cache": true, "my_note": null"#).is_empty());
    let said = warnings(r#""my_note": "x", "his_note": 3"#);
    assert!(
        said.len() == 1 && said[0].contains("his_note, my_note"),
        "{said:?}"
    );
    assert!(warnings(r#""logit_scale": 1.0, "sliding_window": null"#).is_empty());
    for key in [
        "logit_scale",
        "sliding_window",
        "num_experts",
        "quantization_config",
    ] {
        let message = refusal(read(&format!("\"{key}\": 8")));
        assert!(message.contains(&format!("`{key}`")), "{message}");
    }
}
