//! What every plugin must do, whatever it is built on: the suite behind `longhaul check` and behind
//! each plugin's one-line test. It speaks to a plugin through the ABI only.

use std::sync::Mutex;

use longhaul_plugin_api::metadata::ArchitectureInfo;

mod behaviour;
mod gradients;
mod inference;
mod reference;
mod subject;
pub mod tolerance;

pub use subject::{Check, Outcome, Subject};

/// Name of the check without which the others would only say the same again: where it fails, those after it
/// are not run.
pub const FIRST: &str = "build";

/// How a check ends that is not run because [`FIRST`] failed.
pub fn not_run() -> Outcome {
    Outcome::skip(format!("not run, because `{FIRST}` failed"))
}

/// All checks, in the order they are shown.
pub const CHECKS: &[Check] = &[
    Check {
        name: "metadata",
        what: "describes itself completely",
        run: behaviour::metadata,
    },
    Check {
        name: FIRST,
        what: "a model is built, and takes a batch and a token",
        run: behaviour::build,
    },
    Check {
        name: "options",
        what: "takes options at their limits, refuses them past these",
        run: behaviour::options,
    },
    Check {
        name: "parameters",
        what: "parameters read back what was written",
        run: behaviour::parameters,
    },
    Check {
        name: "reference",
        what: "the fast form gives what the reference form gives",
        run: reference::logits,
    },
    Check {
        name: "gradients",
        what: "gradients agree with differences of the loss",
        run: gradients::differences,
    },
    Check {
        name: "batch-sums",
        what: "gradients of a batch are the sum of its parts'",
        run: gradients::sums,
    },
    Check {
        name: "gradients-reach",
        what: "every parameter has a gradient",
        run: gradients::reach,
    },
    Check {
        name: "training",
        what: "steps lower the loss on their batch",
        run: gradients::training,
    },
    Check {
        name: "same-bytes",
        what: "same seed same bytes, at 1 and 2 threads",
        run: gradients::same_bytes,
    },
    Check {
        name: "resume",
        what: "an exported training goes on as it would have",
        run: gradients::resume,
    },
    Check {
        name: "chunks",
        what: "one feed = uneven chunks = single steps",
        run: inference::chunks,
    },
    Check {
        name: "training-feed",
        what: "training and feeding give the same loss",
        run: inference::same_loss,
    },
    Check {
        name: "causality",
        what: "a later token changes no earlier logit",
        run: inference::causality,
    },
    Check {
        name: "rows",
        what: "rows of a batch are independent",
        run: inference::rows,
    },
    Check {
        name: "state-bytes",
        what: "state bytes and growth are as declared",
        run: inference::state_bytes,
    },
    Check {
        name: "fork",
        what: "forks agree, then diverge",
        run: inference::fork,
    },
    Check {
        name: "export",
        what: "exported state goes on where it was",
        run: inference::export,
    },
    Check {
        name: "state-summary",
        what: "says of what its state is and how large it is",
        run: inference::state_summary,
    },
    Check {
        name: "given-state",
        what: "trains from a given state as it reads from it",
        run: gradients::given_state,
    },
    Check {
        name: "long",
        what: "finite after 65536 tokens, 4096 where the state grows",
        run: inference::long,
    },
    Check {
        name: "errors",
        what: "bad input is an error, and usable after it",
        run: behaviour::errors,
    },
    Check {
        name: "two-models",
        what: "two models at once do not disturb each other",
        run: behaviour::two_models,
    },
];

/// Defines a test that holds a plugin type against the whole suite, in-process: every architecture at
/// its default options.
#[macro_export]
macro_rules! plugin {
    ($plugin:ty) => {
        #[test]
        fn conformance() {
            $crate::run_in_process::<$plugin>();
        }
    };
}

/// Runs the suite on a plugin type.
///
/// # Panics
/// With every failed check and what was wrong.
pub fn run_in_process<P: longhaul_plugin_api::author::Plugin>() {
    let all: Vec<&str> = CHECKS.iter().map(|check| check.name).collect();
    run_in_process_only::<P>(&all);
}

/// Runs some checks of the suite, by name, as many at a time as there are cores.
///
/// # Panics
/// With every failed check and what was wrong.
pub fn run_in_process_only<P: longhaul_plugin_api::author::Plugin>(wanted: &[&str]) {
    let info = P::describe();
    let checks = CHECKS.iter().filter(|check| wanted.contains(&check.name));
    let (first, others): (Vec<&Check>, Vec<&Check>) = checks.partition(|check| check.name == FIRST);
    let failure = |architecture: &ArchitectureInfo, check: &Check| {
        let outcome = (check.run)(&Subject::in_process::<P>(&info, architecture));
        let (name, detail) = (&architecture.name, outcome.detail);
        (!outcome.passed).then(|| format!("{name} {}: {detail}", check.name))
    };
    let (mut failures, mut pairs) = (Vec::new(), Vec::new());
    for architecture in &info.architectures {
        let failed = first.iter().find_map(|check| failure(architecture, check));
        if failed.is_none() {
            pairs.extend(others.iter().map(|check| (architecture, *check)));
        }
        failures.extend(failed);
    }
    let (left, found) = (Mutex::new(pairs.into_iter()), Mutex::new(failures));
    let work = || loop {
        let next = left.lock().expect("no panic holds it").next();
        let Some((architecture, check)) = next else {
            return;
        };
        let failed = failure(architecture, check);
        found.lock().expect("no panic holds it").extend(failed);
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    let mut failures = found.into_inner().expect("no panic held it");
    failures.sort();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
