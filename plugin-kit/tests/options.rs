//! What one declaration of options says to the host, and what it reads from a configuration.

use longhaul_plugin_kit::api::abi_stable::std_types::Tuple2;
use longhaul_plugin_kit::api::data::{Device, DeviceKind, ModelConfig};
use longhaul_plugin_kit::api::metadata::{OptionSpec, OptionValue};
use longhaul_plugin_kit::options;
use longhaul_plugin_kit::options::{Settings, Words, part};

options! {
    enum Rule => "how it is shared" {
        First = "first-one",
        Other = "other",
    }

    struct Sizes {
        heads: usize = 4, 1..=64 => "heads";
        offset: i64 = -1, -2..=3 => "offset";
    }

    struct Options {
        rate: f32 = 0.1, 1e-12..=1e3 => "rate";
        exact: f64 = 0.1, 0.0..=1.0 => "exact";
        sizes: Sizes = Sizes { heads: 8, ..Sizes::default() };
        rule: Rule;
        own: Rule = Rule::Other => "its own words";
        pattern: String = "a+b".into() => "pattern";
        flag: Option<bool> = Some(true) => "flag";
        levels: Option<usize> = None, 2..=9 => "levels";
    }
}

/// Every option in a line: name, default, limits, help.
fn said(specs: &[OptionSpec]) -> Vec<String> {
    let line = |spec: &OptionSpec| {
        let (default, limits) = (spec.kind.default_value(), spec.kind.limits());
        format!("{}={default} {limits}; {}", spec.name, spec.help)
    };
    specs.iter().map(line).collect()
}

/// The configuration of a model with these options at their defaults, but for those given.
fn settings(specs: &[OptionSpec], given: &[(&str, &str)]) -> Settings {
    let value = |spec: &OptionSpec| {
        let given = given.iter().find(|(name, _)| spec.name == *name);
        let value = given.map_or(spec.kind.default_value(), |(_, text)| {
            spec.parse(text).expect("within its limits")
        });
        Tuple2(spec.name.clone(), value)
    };
    Settings::new(&ModelConfig {
        architecture: "one".into(),
        options: specs.iter().map(value).collect(),
        vocab: 2,
        d_model: 8,
        layers: 1,
        max_train_length: 8,
        seed: 0,
        device: Device {
            kind: DeviceKind::Cpu,
            index: 0,
            threads: 1,
        },
        extra: Vec::new().into(),
    })
}

#[test]
fn a_declaration_says_name_default_limits_and_help_in_its_order() {
    let expected = [
        "rate=0.1 number 0.000000000001..1000; rate",
        "exact=0.1 number 0..1; exact",
        "heads=8 integer 1..64; heads",
        "offset=-1 integer -2..3; offset",
        "rule=first-one first-one | other; how it is shared",
        "own=other first-one | other; its own words",
        "pattern=a+b text; pattern",
        "flag=true true or false; flag",
    ];
    assert_eq!(said(&Options::default().specs()), expected);
    let other = Options {
        rule: Rule::Other,
        flag: None,
        levels: Some(3),
        ..Options::default()
    };
    let said = said(&other.specs());
    assert!(said[4].starts_with("rule=other "), "{said:?}");
    assert_eq!(said[7], "levels=3 integer 2..9; levels");
}

#[test]
fn a_declaration_reads_what_it_declares() {
    let specs = Options::default().specs();
    let read = Options::read(&settings(&specs, &[])).expect("all are declared");
    assert_eq!(said(&read.specs()), said(&specs), "the defaults come back");
    let given = [("heads", "2"), ("rule", "other"), ("flag", "false")];
    let read = Options::read(&settings(&specs, &given)).expect("all are declared");
    assert_eq!((read.sizes.heads, read.rule.word()), (2, "other"));
    assert_eq!((read.flag, read.levels), (Some(false), None));
}

#[test]
fn a_part_of_a_hybrid_reads_its_own_options() {
    let of = |kind| part(kind, Sizes::default().specs());
    let specs: Vec<OptionSpec> = of("a").chain(of("b")).collect();
    assert_eq!(said(&specs)[2], "b.heads=4 integer 1..64; b layers: heads");
    let settings = settings(&specs, &[("b.heads", "7")]);
    let heads = |kind| Sizes::read(&settings.part(kind)).map(|sizes| sizes.heads);
    assert_eq!((heads("a").ok(), heads("b").ok()), (Some(4), Some(7)));
    let error = heads("c").expect_err("there is no such part");
    assert!(error.message.contains("`c.heads`"), "{error}");
}

#[test]
fn a_value_of_another_type_is_the_author_s_mistake() {
    let mut settings = settings(&Sizes::default().specs(), &[]);
    settings.config.options[0].1 = OptionValue::Boolean(true);
    let error = Sizes::read(&settings).expect_err("heads are a number");
    assert!(error.message.contains("its value is true"), "{error}");
}
