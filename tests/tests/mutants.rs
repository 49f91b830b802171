//! `longhaul check` finds bugs: plugins with one deliberate bug each, and which checks catch which. The table stands in
//! `conformance/README.md`; LONGHAUL_WRITE_TABLE=1 writes it anew.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::sync::Mutex;

use longhaul_tests::build::workspace;
use longhaul_tests::host::{command, finish};
use longhaul_tests::mutants::{Mutant, SWITCH, build};
use longhaul_tests::versions::Edit;

/// The diagonal scan, which hawk is made of.
const SCAN: &str = "plugin-kit/src/recurrences/diagonal/mod.rs";

/// The state matrix, a write after another.
const WRITES: &str = "plugin-kit/src/recurrences/state_matrix/scan.rs";

const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "kept-state",
        bug: "chunk boundary off by one: the state kept for the gradients is a token late",
        plugin: "mamba",
        architecture: "mamba",
        file: "src/scan.rs",
        edit: Edit::Replace(
            "if t % CHUNK == 0 && !kept",
            "if t % CHUNK == usize::from(BUG()) && !kept",
        ),
        caught_by: &["gradients"],
    },
    Mutant {
        name: "chunk-diagonal",
        bug: "a chunk leaves out each token's own input",
        plugin: "mamba2",
        architecture: "mamba2",
        file: "plugin-kit/src/recurrences/state_matrix/head/chunk.rs",
        edit: Edit::Replace(
            "row.split_at_mut(i + 1)",
            "row.split_at_mut(i + usize::from(!BUG()))",
        ),
        caught_by: &["reference"],
    },
    Mutant {
        name: "lost-term",
        bug: "a term of a gradient is lost",
        plugin: "mamba",
        architecture: "mamba",
        file: "src/scan.rs",
        edit: Edit::Replace(
            "let whole = grad_input[i].mul_add(u[i], grad_step[i]);",
            "let rest = if BUG() { 0.0 } else { grad_step[i] };\n                let whole = grad_input[i].mul_add(u[i], rest);",
        ),
        caught_by: &["gradients"],
    },
    Mutant {
        name: "leaking-rows",
        bug: "rows of a batch take each other's state",
        plugin: "griffin",
        architecture: "hawk",
        file: SCAN,
        edit: Edit::Replace(
            "            for (running, state) in running.chunks_exact_mut(width).zip(state.iter()) {",
            "            let mut states: Vec<_> = state.iter().collect();\n            if BUG() {\n                states.reverse();\n            }\n            for (running, state) in running.chunks_exact_mut(width).zip(states) {",
        ),
        caught_by: &["chunks"],
    },
    Mutant {
        name: "future",
        bug: "a query sees the next key",
        plugin: "transformer",
        architecture: "transformer",
        file: "plugin-kit/src/ops/attention_tile.rs",
        edit: Edit::Replace(
            "let to = (at + 1).clamp(",
            "let to = (at + 1 + usize::from(BUG())).clamp(",
        ),
        caught_by: &["causality", "reference"],
    },
    Mutant {
        name: "late-decay",
        bug: "the state is halved in every feed past 1024 tokens",
        plugin: "griffin",
        architecture: "hawk",
        file: SCAN,
        edit: Edit::Before(
            "        let mut h = run.value_mut(self.h);",
            "        if BUG() && run.position() + length as u64 > 1024 {\n            running.iter_mut().for_each(|value| *value *= 0.5);\n        }\n",
        ),
        caught_by: &["reference"],
    },
    Mutant {
        name: "stale-state",
        bug: "a training sequence starts from what the buffer held",
        plugin: "griffin",
        architecture: "hawk",
        file: SCAN,
        edit: Edit::Replace(
            "None => running.fill(0.0),",
            "None if BUG() => {}\n        None => running.fill(0.0),",
        ),
        caught_by: &["build"],
    },
    Mutant {
        name: "lanes-by-threads",
        bug: "the order of a sum depends on the number of threads",
        plugin: "lstm",
        architecture: "lstm",
        file: "plugin-kit/src/engine/train.rs",
        edit: Edit::Replace(
            "let count = micros.min(MAX_LANES)",
            "let threads = if BUG() { rayon::current_num_threads() } else { MAX_LANES };\n        let count = micros.min(threads).min(MAX_LANES)",
        ),
        caught_by: &["same-bytes"],
    },
    Mutant {
        name: "idle-parameter",
        bug: "a parameter has no gradient",
        plugin: "mamba",
        architecture: "mamba",
        file: "src/cpu.rs",
        edit: Edit::Replace(
            "grad_skip[channel] += grad_d[channel];",
            "if !BUG() {\n                    grad_skip[channel] += grad_d[channel];\n                }",
        ),
        caught_by: &["gradients-reach"],
    },
    Mutant {
        name: "state-bytes",
        bug: "declares a value of state that is not there",
        plugin: "lstm",
        architecture: "lstm",
        file: "plugin-kit/src/engine/tensor.rs",
        edit: Edit::Replace(
            "Self::Fixed { values, .. } => values as u64,",
            "Self::Fixed { values, .. } => values as u64 + u64::from(BUG()),",
        ),
        caught_by: &["state-bytes"],
    },
    Mutant {
        name: "short-window",
        bug: "the cache keeps too few tokens for the window",
        plugin: "transformer",
        architecture: "transformer:heads=2,window=8",
        file: "plugin-kit/src/ops/attention.rs",
        edit: Edit::Replace(
            "saturating_sub(window * per_token)",
            "saturating_sub((window - 2 * usize::from(BUG())) * per_token)",
        ),
        caught_by: &["chunks"],
    },
    Mutant {
        name: "import-position",
        bug: "an imported state forgets its position",
        plugin: "transformer",
        architecture: "transformer",
        file: "plugin-kit/src/engine/session.rs",
        edit: Edit::Replace(
            "let (position, slots) = read_state(&program.states, self.rows, bytes)?;\n        self.position = position;",
            "let (position, slots) = read_state(&program.states, self.rows, bytes)?;\n        if !BUG() {\n            self.position = position;\n        }",
        ),
        caught_by: &["export"],
    },
    Mutant {
        name: "unwritten-buffer",
        bug: "a sum starts from what the buffer held",
        plugin: "griffin",
        architecture: "hawk",
        file: "src/gate.rs",
        edit: Edit::Replace(
            "grad_rates.fill(0.0);",
            "if !BUG() {\n            grad_rates.fill(0.0);\n        }",
        ),
        caught_by: &["build"],
    },
    Mutant {
        name: "late-position",
        bug: "positions are off by one after the first feed",
        plugin: "transformer",
        architecture: "transformer",
        file: "plugin-kit/src/ops/rotary.rs",
        edit: Edit::Replace(
            "let position = (run.position() + (block * EXACT_EVERY) as u64) as f64;",
            "let position = (run.position() + (block * EXACT_EVERY) as u64 + u64::from(BUG() && run.position() > 0)) as f64;",
        ),
        caught_by: &["chunks"],
    },
    Mutant {
        name: "overwritten-input",
        bug: "an input's gradient is overwritten where it is to be added to, and nothing else uses that input",
        plugin: "lstm",
        architecture: "lstm",
        file: "plugin-kit/src/recurrences/cell/recurrent.rs",
        edit: Edit::Replace(
            "let accumulate = place.accumulate();",
            "let accumulate = place.accumulate() && !BUG();",
        ),
        caught_by: &["build"],
    },
    Mutant {
        name: "lost-rows",
        bug: "what rows of a batch leave in the gradients is lost when the next ones are computed",
        plugin: "lstm",
        architecture: "lstm",
        file: "plugin-kit/src/engine/train.rs",
        edit: Edit::Before(
            "                    arena.prepare(program, shape, true);",
            "                    if BUG() {\n                        clear(grads);\n                    }\n",
        ),
        caught_by: &["batch-sums"],
    },
    Mutant {
        name: "linear-decay",
        bug: "keys decay by 1 + x and not by its exponential",
        plugin: "delta",
        architecture: "kda",
        file: WRITES,
        edit: Edit::Replace(
            "*w = exp(*w);",
            "*w = if BUG() { 1.0 + *w } else { exp(*w) };",
        ),
        caught_by: &["reference"],
    },
    Mutant {
        name: "lost-removal",
        bug: "nothing is removed from the state",
        plugin: "rwkv",
        architecture: "rwkv7",
        file: WRITES,
        edit: Edit::Replace(
            "loaded.b = b.load(t, 0);",
            "if !BUG() {\n                loaded.b = b.load(t, 0);\n            }",
        ),
        caught_by: &["reference"],
    },
    Mutant {
        name: "state-before",
        bug: "the delta rule in chunks takes the state before a chunk as it decayed to the token before",
        plugin: "delta",
        architecture: "gated-deltanet",
        file: "plugin-kit/src/recurrences/state_matrix/head/delta.rs",
        edit: Edit::Replace(
            "(-kept[t]).mul_add(",
            "(-kept[t.saturating_sub(usize::from(BUG()))]).mul_add(",
        ),
        caught_by: &["reference"],
    },
    Mutant {
        name: "dropped-write",
        bug: "the second of a token's writes is dropped",
        plugin: "delta",
        architecture: "delta-product",
        file: "plugin-kit/src/recurrences/state_matrix/head/delta.rs",
        edit: Edit::Before(
            "            for (value, fresh) in own[start..][..width].iter_mut()",
            "            // By default a token has two.\n            let beta = if BUG() && t % 2 == 1 { 0.0 } else { beta };\n",
        ),
        caught_by: &["reference"],
    },
];

/// Names of the checks that fail on a mutant.
fn failures(mutant: &Mutant) -> BTreeSet<String> {
    let library = mutant.library().to_string_lossy().into_owned();
    let mut check = command(["check", &mutant.text(), "--plugin", &library, "--json"]);
    check.env(SWITCH, mutant.name);
    let ran = finish(check.spawn().expect("the program starts")).expect(1);
    let results = ran.stdout.lines().map(|line| {
        let result: serde_json::Value = serde_json::from_str(line).expect("a JSON line");
        (
            result["check"].as_str().expect("a name").to_owned(),
            result["passed"] == true,
        )
    });
    results
        .filter(|(_, passed)| !passed)
        .map(|(name, _)| name)
        .collect()
}

#[test]
fn every_mutant_is_caught() {
    build(MUTANTS);
    let left = Mutex::new(MUTANTS.iter());
    let found = Mutex::new(HashMap::new());
    let work = || loop {
        let next = left.lock().expect("no panic holds it").next();
        let Some(mutant) = next else { return };
        let failed = failures(mutant);
        let mut found = found.lock().expect("no panic holds it");
        found.insert(mutant.name, failed);
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    let found = found.into_inner().expect("no panic held it");
    let all = || MUTANTS.iter().map(|mutant| (mutant, &found[mutant.name]));
    let mut table = String::from("| mutant | bug | caught by |\n|---|---|---|\n");
    for (mutant, failed) in all() {
        let names: Vec<&str> = failed.iter().map(String::as_str).collect();
        table.push_str(&format!(
            "| {} ({}) | {} | {} |\n",
            mutant.name,
            mutant.architecture,
            mutant.bug,
            names.join(", ")
        ));
    }
    println!("{table}");
    let path = workspace().join("conformance/README.md");
    let text = fs::read_to_string(&path).expect("the table's document");
    let heading = "## Which check catches which bug\n\n";
    let (before, old) = text.split_once(heading).expect("the table's heading");
    if std::env::var_os("LONGHAUL_WRITE_TABLE").is_some() {
        fs::write(&path, format!("{before}{heading}{table}")).expect("writable");
    } else {
        assert_eq!(old, table, "LONGHAUL_WRITE_TABLE=1 writes the table anew");
    }
    for (mutant, failed) in all() {
        for check in mutant.caught_by {
            assert!(failed.contains(*check), "{}: {check} passed", mutant.name);
        }
    }
}
