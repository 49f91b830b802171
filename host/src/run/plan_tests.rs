//! Tests of [`super::plan`]: expansion, replacement and refusal, without any plugin.

use longhaul_tasks::{Suite, TrainDistribution};

use super::error::RunError;
use super::plan::{Overrides, Plan, Planned, Training, Unit, make};
use crate::architecture::ArchSpec;
use crate::architecture::tests::spec;
use crate::run::materials::{Stock, Wanted};
use crate::run::records::tests::unit;

const SUITE: &str = r#"
[training]
steps = 20
learning_rates = [1e-3, 3e-3]
seeds = 2
[[architecture]]
name = "one"
[[architecture]]
name = "two:state=8,d_model=32"
[[task]]
name = "induction"
train_length = 32
lengths = [64, 32, 64]
[[task]]
name = "parity"
train_length_min = 3
train_length = 40
"#;

fn resolve(text: &str) -> Result<ArchSpec, RunError> {
    let (name, options) = text.split_once(':').unwrap_or((text, ""));
    let wide = options.contains("d_model=32");
    Ok(ArchSpec {
        plugin: format!("longhaul-{name}"),
        architecture: name.to_owned(),
        options: if options.contains("state=8") {
            vec![("state".to_owned(), "8".to_owned())]
        } else {
            Vec::new()
        },
        d_model: wide.then_some(32),
        ..spec()
    })
}

fn plan(overrides: &Overrides) -> Result<Plan, RunError> {
    let suite = Suite::from_toml(SUITE, "test").unwrap();
    make(
        &suite,
        "test",
        overrides,
        "cpu",
        &Stock::default(),
        &resolve,
    )
}

/// Each distribution of training lengths is a training of its own. Fixed lengths are those of the longest alone, and
/// what was uniform before there was another is the same unit still.
#[test]
fn distributions_of_training_lengths_are_an_axis() {
    use TrainDistribution::{Curriculum, Fixed, Uniform};
    let planned = |train_distributions: Vec<_>, train_length| {
        plan(&Overrides {
            architectures: vec!["one".into()],
            tasks: vec!["parity".into()],
            learning_rates: vec![1e-3],
            seeds: Some(1),
            train_length,
            train_distributions,
            ..Overrides::default()
        })
    };
    let today = planned(Vec::new(), None).unwrap().units;
    let units = planned(vec![Fixed, Uniform, Curriculum(0.25)], None)
        .unwrap()
        .units;
    let drawn: Vec<_> = units
        .iter()
        .map(|unit| unit.training.as_ref().unwrap())
        .collect();
    let lengths = |training: &&Training| {
        (
            training.length_min,
            training.length,
            training.growing_steps(),
        )
    };
    let lengths: Vec<_> = drawn.iter().map(lengths).collect();
    assert_eq!(lengths, [(40, 40, 0), (3, 40, 0), (3, 40, 5)]);
    let names: Vec<_> = drawn
        .iter()
        .map(|training| training.distribution())
        .collect();
    assert_eq!(names, [Fixed, Uniform, Curriculum(0.25)]);
    assert_eq!(units[1], today[0]);
    assert_eq!(
        units[0],
        planned(Vec::new(), Some((40, 40))).unwrap().units[0]
    );
    let text = serde_json::to_string(&today).unwrap();
    assert!(!text.contains("curriculum"), "{text}");
    let refused = planned(vec![Fixed, Uniform], Some((40, 40)))
        .unwrap_err()
        .to_string();
    assert!(refused.contains("--train-length MIN..MAX"), "{refused}");
    // Mean lengths, which a plan is sized by: 40, 21.5, and a quarter of the time half of the range is left out.
    let tokens: Vec<f64> = drawn
        .iter()
        .map(|training| training.sequence_tokens() / (20.0 * 32.0))
        .collect();
    assert_eq!(tokens, [40.0, 21.5, 21.5 - 0.25 * 37.0 / 4.0]);
}

/// A published figure speaks of the models whose training lengths were drawn as it says, or of each in turn.
#[test]
fn a_target_is_held_against_each_distribution_or_its_own() {
    let suite = |line: &str| {
        let target = format!(
            "{SUITE}[[target]]\nclaim = 'c'\nsource = 's'\ntask = 'parity'\nlengths = [40]\nat_least = 0.9\n{line}\n"
        );
        Suite::from_toml(&target, "test").unwrap()
    };
    let said_of = |line: &str, train_distributions: Vec<TrainDistribution>| -> Vec<String> {
        let overrides = Overrides {
            tasks: vec!["parity".into()],
            train_distributions,
            ..Overrides::default()
        };
        let stock = Stock::default();
        let plan = make(&suite(line), "test", &overrides, "cpu", &stock, &resolve).unwrap();
        plan.targets.into_iter().map(|target| target.of).collect()
    };
    let both = || vec![TrainDistribution::Fixed, TrainDistribution::Uniform];
    let one = "architecture = 'one'\n";
    assert_eq!(said_of(one, Vec::new()), [""]);
    assert_eq!(
        said_of(one, both()),
        ["training lengths: fixed", "training lengths: uniform"]
    );
    let uniform = &format!("{one}train_distribution = 'uniform'");
    assert_eq!(said_of(uniform, Vec::new()), [""]);
    assert_eq!(said_of(uniform, both()), ["training lengths: uniform"]);
    assert!(said_of(&format!("{one}train_distribution = 'curriculum'"), both()).is_empty());
    let several = "architecture = ['one', 'two:state=8,d_model=32']\n";
    assert_eq!(
        said_of(several, Vec::new()),
        ["one", "two:state=8,d_model=32"]
    );
    assert_eq!(
        said_of(several, both())[1..3],
        [
            "one, training lengths: uniform",
            "two:state=8,d_model=32, training lengths: fixed"
        ]
    );
}

#[test]
fn a_plan_is_the_product_of_its_parts() {
    let plan = plan(&Overrides::default()).unwrap();
    assert_eq!(plan.units.len(), 2 * 2 * 2 * 2);
    let names: std::collections::HashSet<_> = plan.units.iter().map(|unit| &unit.name).collect();
    assert_eq!(names.len(), plan.units.len());
    let first = &plan.units[0];
    assert_eq!(first.options, "d_model=64,layers=2");
    assert_eq!(first.lengths, [32, 64]);
    let last = plan.units.last().unwrap();
    assert_eq!(last.options, "d_model=32,layers=2,state=8");
    assert_eq!(
        last.architecture_text(),
        "longhaul-two/two:d_model=32,layers=2,state=8"
    );
    let training = last.training.as_ref().unwrap();
    assert_eq!((training.length_min, training.length), (3, 40));
    // Without lengths in the suite: doublings to 16 times the training length.
    assert_eq!(last.lengths, [40, 80, 160, 320, 640]);
    assert_eq!(training.warmup_steps, 20, "no longer than the training");
}

#[test]
fn the_command_line_replaces_the_suite() {
    let overrides = Overrides {
        architectures: vec!["three".to_owned(), "three".to_owned()],
        tasks: vec!["parity".to_owned()],
        lengths: Some(vec![16]),
        train_length: Some((8, 8)),
        seeds: Some(2),
        first_seed: 3,
        learning_rates: vec![0.5],
        steps: Some(7),
        batch: Some(3),
        d_model: Some(16),
        layers: Some(1),
        samples: Some(9),
        ..Overrides::default()
    };
    let plan = plan(&overrides).unwrap();
    let seeds: Vec<u64> = plan.units.iter().map(|unit| unit.seed).collect();
    assert_eq!(seeds, [3, 4], "the same unit twice is one");
    let unit = &plan.units[0];
    assert_eq!(unit.options, "d_model=16,layers=1");
    assert_eq!((unit.d_model, unit.layers, unit.samples), (16, 1, 9));
    let training = unit.training.as_ref().unwrap();
    assert_eq!((training.steps, training.batch), (7, 3));
    assert_eq!((training.length_min, training.length), (8, 8));
    assert_eq!(unit.validation, [0_usize; 0], "one rate leaves no choice");
}

#[test]
fn rates_are_compared_inside_the_training_length() {
    let validation = |lengths: Vec<usize>| {
        let overrides = Overrides {
            tasks: vec!["parity".to_owned()],
            lengths: Some(lengths),
            train_length: Some((8, 32)),
            learning_rates: vec![1e-3, 1e-2],
            ..Overrides::default()
        };
        plan(&overrides).unwrap().units[0].validation.clone()
    };
    assert_eq!(validation(vec![16, 64, 32]), [16, 32]);
    assert_eq!(validation(vec![64]), [32]);
}

#[test]
fn a_task_that_is_there_twice_is_measured_at_the_lengths_of_both() {
    let plan = |lengths: [&str; 2], samples: [u32; 2]| {
        let entry = |place: usize| {
            format!(
                "[[task]]\nname = \"parity\"\nlengths = {}\nsamples = {}\n",
                lengths[place], samples[place]
            )
        };
        let text = format!("[[architecture]]\nname = \"one\"\n{}{}", entry(0), entry(1));
        let suite = Suite::from_toml(&text, "test").unwrap();
        make(
            &suite,
            "test",
            &Overrides::default(),
            "cpu",
            &Stock::default(),
            &resolve,
        )
    };
    let units = plan(["[40, 80]", "[20, 40]"], [5, 5]).unwrap().units;
    assert_eq!(units.len(), 1);
    assert_eq!(units[0].lengths, [20, 40, 80]);
    let refused = plan(["[40]", "[80]"], [5, 6]).unwrap_err().to_string();
    assert!(refused.contains("5 and with 6 examples"), "{refused}");
}

#[test]
fn names_are_short_whatever_the_numbers() {
    let overrides = Overrides {
        learning_rates: vec![1.234_567_890_123_456_7e-30, 0.1 + 0.2],
        ..Overrides::default()
    };
    for unit in plan(&overrides).unwrap().units {
        assert!(unit.name.len() < 160, "{}", unit.name);
    }
}

#[test]
fn the_id_follows_what_decides_values() {
    let base = plan(&Overrides::default()).unwrap();
    assert_eq!(base.run_id, plan(&Overrides::default()).unwrap().run_id);
    let more_steps = plan(&Overrides {
        steps: Some(21),
        ..Overrides::default()
    })
    .unwrap();
    assert_ne!(base.run_id, more_steps.run_id);
    assert_ne!(base.units[0].id(), more_steps.units[0].id());
    let longer = plan(&Overrides {
        lengths: Some(vec![128]),
        ..Overrides::default()
    })
    .unwrap();
    assert_ne!(base.run_id, longer.run_id);
    // The trained model is the same whatever it is evaluated on.
    assert_eq!(base.units[0].id(), longer.units[0].id());
}

#[test]
fn what_cannot_be_is_refused_in_words() {
    let short = plan(&Overrides {
        tasks: vec!["mqar:pairs=8".to_owned()],
        lengths: Some(vec![16]),
        ..Overrides::default()
    });
    let message = short.unwrap_err().to_string();
    assert!(
        message.contains("mqar") && message.contains("16"),
        "{message}"
    );
    let rate = plan(&Overrides {
        learning_rates: vec![f64::NAN],
        ..Overrides::default()
    });
    assert!(rate.unwrap_err().to_string().contains("NaN"));
    let steps = plan(&Overrides {
        steps: Some(0),
        ..Overrides::default()
    });
    assert!(steps.unwrap_err().to_string().contains("steps"));
    let suite = Suite::from_toml(SUITE, "test").unwrap();
    let device = make(
        &suite,
        "test",
        &Overrides::default(),
        "cuda:0",
        &Stock::default(),
        &resolve,
    );
    let message = device.unwrap_err().to_string();
    assert!(message.contains("does not run on cuda"), "{message}");
}

/// A task named without options is the suite's, with its options and settings; with options, the entry
/// that has just these, or one of its own.
#[test]
fn a_task_without_options_is_the_suites() {
    let suite = r#"
[[architecture]]
name = "one"
[[task]]
name = "mqar:pairs=4,vocab=64"
train_length = 64
steps = 3
[[task]]
name = "mqar:pairs=2,vocab=64"
train_length = 64
steps = 4
[[task]]
name = "parity"
"#;
    let suite = Suite::from_toml(suite, "test").unwrap();
    let planned = |text: &str| {
        let overrides = Overrides {
            tasks: vec![text.to_owned()],
            ..Overrides::default()
        };
        let plan = make(
            &suite,
            "test",
            &overrides,
            "cpu",
            &Stock::default(),
            &resolve,
        )
        .unwrap();
        let said = plan.units.iter().map(|unit| {
            let pairs = unit.task_options.split(',').find(|o| o.contains("pairs"));
            (
                pairs.unwrap_or("").to_owned(),
                unit.training.as_ref().unwrap().steps,
            )
        });
        said.collect::<Vec<_>>()
    };
    let said = |pairs: &str, steps| (pairs.to_owned(), steps);
    assert_eq!(planned("mqar"), [said("pairs=4", 3), said("pairs=2", 4)]);
    assert_eq!(planned("mqar:vocab=64,pairs=2"), [said("pairs=2", 4)]);
    assert_eq!(planned("mqar:pairs=4"), [said("pairs=4", 1000)]);
    assert_eq!(planned("induction"), [said("", 1000)]);
}

#[test]
fn targets_are_of_the_materials_of_their_units() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["a", "b", "c", "d"] {
        let word = |index: usize| format!("{name}{} ", index * index);
        let text: String = (0..4000).map(word).collect();
        std::fs::write(folder.path().join(format!("{name}.txt")), text).unwrap();
    }
    let text = r#"
[[architecture]]
name = "one"
[[task]]
name = "books"
train_length = 64
lengths = [64]
[[target]]
claim = "it reads"
source = "here"
architecture = "one"
task = "books"
lengths = [64]
below = 3.0
"#;
    let suite = Suite::from_toml(text, "test").unwrap();
    let wanted = Wanted {
        texts: Some(folder.path().to_owned()),
        ..Wanted::default()
    };
    for wanted in [Wanted::default(), wanted] {
        let stock = Stock::open(&wanted).unwrap();
        let plan = make(
            &suite,
            "test",
            &Overrides::default(),
            "cpu",
            &stock,
            &resolve,
        )
        .unwrap();
        let [target] = plan.targets.as_slice() else {
            panic!("{wanted:?} has the targets {:?}", plan.targets);
        };
        assert_eq!(target.task_options, plan.units[0].task_options);
    }
}

/// A target of an architecture that is not here is an error of a whole suite, and nothing to a part of it.
#[test]
fn a_part_of_a_suite_needs_no_plugins_of_the_rest() {
    let of = |name: &str| {
        let text = format!(
            "{SUITE}[[target]]\nclaim = 'c'\nsource = 's'\narchitecture = '{name}'\ntask = 'parity'\nlengths = [40]\nat_least = 0.9\n"
        );
        Suite::from_toml(&text, "test").unwrap()
    };
    let plan = |suite: &Suite, architectures: &[&str]| {
        let overrides = Overrides {
            architectures: architectures
                .iter()
                .map(|name| (*name).to_owned())
                .collect(),
            ..Overrides::default()
        };
        let resolve = |text: &str| match text {
            "absent" => Err(RunError::Input("no architecture `absent`".to_owned())),
            text => resolve(text),
        };
        make(
            suite,
            "test",
            &overrides,
            "cpu",
            &Stock::default(),
            &resolve,
        )
    };
    assert!(plan(&of("absent"), &[]).is_err());
    assert!(plan(&of("absent"), &["absent"]).is_err());
    assert_eq!(plan(&of("absent"), &["lstm"]).unwrap().targets.len(), 0);
    assert_eq!(plan(&of("lstm"), &["lstm"]).unwrap().targets.len(), 1);
}

/// A training that is planned twice is measured, and compared with others, at the lengths of both.
#[test]
fn the_same_unit_has_the_lengths_of_both() {
    let of = |lengths: &[usize], validation: &[usize]| Unit {
        lengths: lengths.to_vec(),
        validation: validation.to_vec(),
        ..unit(10)
    };
    let mut planned = Planned::default();
    planned.add(of(&[40, 80], &[40]), &spec()).unwrap();
    planned.add(of(&[20, 80], &[20, 40]), &spec()).unwrap();
    assert_eq!(planned.units, [of(&[20, 40, 80], &[20, 40])]);
}
