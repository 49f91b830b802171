//! Tasks and architectures as text, damaged: each is read or refused in a sentence; a task that is read
//! makes an example, and an architecture that is read is read again from its own text.

use longhaul::architecture::ArchSpec;
use longhaul::catalogue::{Architecture, ArchitectureOption, Catalogue, Kind, Plugin};
use longhaul::libraries::Place;
use longhaul_fuzz::random::Random;
use longhaul_fuzz::{answer, driver, text};
use longhaul_tasks::{Coordinates, Split, parse_task, registry};

/// Values that some options of some tasks have.
const VALUES: [&str; 19] = [
    "0", "1", "2", "3", "7", "64", "4096", "65536", "0.001", "0.5", "10", "grid", "uniform",
    "varied", "repeat", "number", "uuid", "true", "random",
];

/// One architecture with an option of every type.
fn catalogue() -> Catalogue {
    let option = |name: &str, kind| ArchitectureOption {
        name: name.to_owned(),
        help: String::new(),
        kind,
    };
    let word = || "a".to_owned();
    let (min, max) = (1, 1024);
    let options = vec![
        option(
            "state",
            Kind::Integer {
                default: 64,
                min,
                max,
            },
        ),
        option(
            "scale",
            Kind::Float {
                default: 1.0,
                min: 1e-3,
                max: 1e3,
            },
        ),
        option("tied", Kind::Boolean { default: false }),
        option(
            "mode",
            Kind::Choice {
                default: word(),
                choices: vec![word(), "b".to_owned()],
            },
        ),
        option("pattern", Kind::Text { default: word() }),
    ];
    let architecture = Architecture {
        name: "arch".to_owned(),
        title: String::new(),
        family: "other".to_owned(),
        citation: String::new(),
        options,
        state_growth: "constant".to_owned(),
        devices: vec!["cpu".to_owned()],
        capabilities: Vec::new(),
        naive: Vec::new(),
    };
    let plugin = Plugin {
        path: "liblibrary.so".into(),
        place: Place::Own,
        sha256: "00".to_owned(),
        name: "library".to_owned(),
        version: "0.1.0".to_owned(),
        licence: String::new(),
        authors: Vec::new(),
        kit: String::new(),
        api_version: String::new(),
        architectures: vec![architecture],
        model_types: Vec::new(),
    };
    Catalogue {
        plugins: vec![plugin],
    }
}

/// `architecture` or `task`, a line's end, and a text.
fn make(random: &mut Random) -> Vec<u8> {
    if random.one_in(3) {
        let names = ["arch", "library/arch", "arhc", "/arch", "library/"];
        let options = [
            "state", "scale", "tied", "mode", "pattern", "d_model", "layers", "stat",
        ];
        let names = if random.one_in(2) {
            &names[..2]
        } else {
            &names
        };
        return format!("architecture\n{}", text::options(random, names, &options)).into_bytes();
    }
    let spec = random.choose(registry());
    let mut words = spec.name.to_owned();
    for option in spec.options {
        let join = if words.contains(':') { ',' } else { ':' };
        match random.below(8) {
            0 | 1 => words.push_str(&format!("{join}{}={}", option.name, random.choose(&VALUES))),
            2 => words.push_str(&format!("{join}{}={}", option.name, option.default)),
            3 if random.one_in(2) => words += random.choose::<&str>(text::AWKWARD),
            _ => {}
        }
    }
    if random.one_in(4) {
        words = text::string(random, &words);
    }
    format!("task\n{words}").into_bytes()
}

/// Reads a task; one that is read makes examples whose tokens it has.
fn task(text: &str) -> &'static str {
    let task = match parse_task(text) {
        Ok(task) => task,
        Err(error) => {
            let message = error.to_string();
            answer::sentence(&message);
            assert!(message.contains('`'), "names nothing: {message}");
            return "refused tasks";
        }
    };
    let again = format!("{}:{}", task.spec().name, task.options_text());
    let same = parse_task(&again).unwrap_or_else(|error| panic!("{text}: {again}: {error}"));
    assert_eq!(same.options_text(), task.options_text());
    if let Err(error) = task.ready() {
        answer::sentence(&error.to_string());
        return "read tasks";
    }
    for (index, more) in [0, 1, 17, 299].into_iter().enumerate() {
        let length = (task.min_length() + more).min(task.max_length());
        let at = Coordinates {
            split: Split::Test,
            length,
            seed: text.len() as u64,
            index: 1 << (10 * index),
        };
        let sample = task
            .sample(&at)
            .unwrap_or_else(|error| panic!("{text}: {error}"));
        let (mut tokens, mut targets) = (vec![0; sample.len()], vec![0; sample.len()]);
        sample.write(0, &mut tokens, &mut targets);
        let vocab = task.vocab() as u32;
        assert!(tokens.iter().all(|&token| token < vocab), "{text} {length}");
    }
    "read tasks"
}

/// Reads an architecture; its own text means the same.
fn architecture(text: &str, catalogue: &Catalogue) -> &'static str {
    match ArchSpec::parse(text, catalogue) {
        Ok(spec) => {
            let again = ArchSpec::parse(&spec.text(), catalogue)
                .unwrap_or_else(|error| panic!("{text}: {}: {error}", spec.text()));
            assert_eq!((again.values, again.options), (spec.values, spec.options));
            "read architectures"
        }
        Err(error) => {
            answer::sentence(&error.message);
            assert!(error.message.contains('`'), "names nothing: {error}");
            "refused architectures"
        }
    }
}

fn main() {
    let catalogue = catalogue();
    let answers = [
        "read tasks",
        "refused tasks",
        "read architectures",
        "refused architectures",
    ];
    driver::fuzz("option_strings", 8_000, &answers, make, |input| {
        let input = String::from_utf8_lossy(input);
        match input.split_once('\n').expect("a kind and a text") {
            ("task", text) => task(text),
            (_, text) => architecture(text, &catalogue),
        }
    });
}
