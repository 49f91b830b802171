//! Suites, damaged: each is read and planned, or refused in a sentence that names it.

// Errors here are read once a failure, so their size does not matter.
#![allow(clippy::result_large_err)]

use longhaul::architecture::ArchSpec;
use longhaul::exit::CommandError;
use longhaul::run::error::RunError;
use longhaul::run::materials::Stock;
use longhaul::run::plan::{Overrides, make};
use longhaul_fuzz::random::Random;
use longhaul_fuzz::{answer, driver, toml};
use longhaul_tasks::{Named, Suite, suites};

/// What the messages call the suite.
const ORIGIN: &str = "damaged";

/// An architecture that takes every option: no library is needed to plan.
fn resolve(text: &str) -> Result<ArchSpec, RunError> {
    let parsed = Named::parse(text).map_err(CommandError::usage);
    let Named { name, options } = parsed.map_err(RunError::Command)?;
    Ok(ArchSpec {
        library: "any.so".into(),
        plugin: "any".to_owned(),
        plugin_version: "0.1.0".to_owned(),
        plugin_sha256: "00".to_owned(),
        architecture: name,
        values: Vec::new(),
        in_evaluations: Vec::new(),
        options,
        d_model: None,
        layers: None,
        initial_state: None,
        devices: vec!["cpu".to_owned()],
    })
}

fn main() {
    let make_input = |random: &mut Random| {
        let (_, text) = random.choose(suites());
        toml::document(random, text).into_bytes()
    };
    // Few trainings an input: their number is no part of what is read.
    let overrides = Overrides {
        seeds: Some(1),
        ..Overrides::default()
    };
    let answers = ["planned", "read and not planned", "refused"];
    driver::fuzz("suite_toml", 4_000, &answers, make_input, |input| {
        let text = String::from_utf8_lossy(input);
        let suite = match Suite::from_toml(&text, ORIGIN) {
            Ok(suite) => suite,
            Err(error) => {
                let message = error.to_string();
                answer::sentence(&message);
                assert!(message.starts_with("suite damaged"), "{message}");
                return "refused";
            }
        };
        match make(
            &suite,
            ORIGIN,
            &overrides,
            "cpu",
            &Stock::default(),
            &resolve,
        ) {
            Ok(plan) => {
                assert!(!plan.units.is_empty());
                assert_eq!(plan.units.len(), plan.architectures.len());
                "planned"
            }
            Err(error) => {
                answer::sentence(&error.to_string());
                "read and not planned"
            }
        }
    });
}
