//! The commands as a user meets them: what they print, what they refuse and how, and their exit codes.

use longhaul_tests::build::faulty;
use longhaul_tests::host::{Folder, Ran, assert_reads_well, longhaul, wide_lines};

const COMMANDS: &[&str] = &[
    "run",
    "plan",
    "eval",
    "compare",
    "report",
    "submit",
    "collect",
    "reproduce",
    "watch",
    "audit",
    "cite",
    "schema",
    "list",
    "tasks",
    "suites",
    "show",
    "devices",
    "check",
    "bench",
    "checkpoint",
    "new",
    "compare",
    "completions",
    "man",
];

fn with_faulty(arguments: &str) -> Ran {
    let mut words: Vec<String> = arguments.split_whitespace().map(str::to_owned).collect();
    words.push("--plugin".to_owned());
    words.push(faulty().to_string_lossy().into_owned());
    longhaul(words)
}

#[test]
fn help_names_every_command_the_exit_codes_and_an_example() {
    let ran = longhaul(["--help"])
        .expect(0)
        .prints(COMMANDS)
        .prints(&["130"]);
    assert!(
        !ran.stdout.contains("worker"),
        "workers are the host's own affair"
    );
    assert_reads_well(&ran);
    for command in COMMANDS {
        let ran = longhaul([command, "--help"]).expect(0);
        let example = format!("longhaul {command}");
        let shown = ran.stdout.lines().filter(|line| line.contains(&example));
        let examples = shown.filter(|line| !line.contains("Usage:")).count();
        assert!(
            examples > 0,
            "no example of `{command}` in:\n{}",
            ran.stdout
        );
        // A command's own options come first, all in the short form.
        let own = ran.stdout.find("\nEvery command:\n").expect("a heading");
        let last = ran
            .stdout
            .find("--help")
            .expect("the last of a command's own");
        assert!(last < own && ran.stdout.find("--quiet").is_some_and(|place| place > own));
        assert!(!ran.stdout.contains("Possible values:"), "{}", ran.stdout);
        assert_reads_well(&ran);
    }
    for nested in [
        "submit slurm",
        "checkpoint inspect",
        "checkpoint verify",
        "checkpoint eval",
        "checkpoint convert",
        "ruler generate",
        "ruler score",
    ] {
        let words = nested.split(' ').chain(["--help"]);
        assert_reads_well(&longhaul(words).expect(0));
    }
}

#[test]
fn a_check_that_there_is_not_is_refused() {
    longhaul(["check", "faulty", "--only", "gradient-check"])
        .expect(2)
        .complains(&["`gradient-check`", "gradients", "two-models"]);
}

#[test]
fn what_is_misspelt_names_the_nearest() {
    let folder = Folder::default();
    let out = folder.out();
    let out = out.to_string_lossy();
    let cases: &[(&str, &[&str])] = &[
        (
            "run --arch fualty --task parity --lengths 16",
            &["`fualty`", "`faulty`"],
        ),
        (
            "run --arch faulty:falt=none --task parity --lengths 16",
            &["`falt`", "`fault`"],
        ),
        (
            "run --arch faulty:fault=non --task parity --lengths 16",
            &["`non`", "none"],
        ),
        (
            "run --arch faulty --task pairty --lengths 16",
            &["`pairty`", "`parity`"],
        ),
        (
            "run --arch faulty --task mqar:pair=4 --lengths 64",
            &["`pair`", "`pairs`"],
        ),
        ("run quikc", &["quikc", "quick"]),
        ("list fualty", &["`fualty`", "`faulty`"]),
        (
            "bench --arch fualty --mode train",
            &["`fualty`", "`faulty`"],
        ),
        ("rum", &["'rum'", "'run'"]),
        ("run --lenghts 16", &["--lenghts", "--lengths"]),
    ];
    for (arguments, words) in cases {
        let mut arguments = (*arguments).to_owned();
        if arguments.starts_with("run") {
            arguments.push_str(&format!(" --out {out}"));
        }
        with_faulty(&arguments).expect(2).complains(words);
        assert!(
            !folder.out().exists(),
            "`{arguments}` left something behind"
        );
    }
    for command in ["show", "tasks"] {
        longhaul([command, "pairty"])
            .expect(2)
            .complains(&["`pairty`", "`parity`"]);
    }
}

#[test]
fn a_suite_key_that_is_misspelt_names_the_nearest_and_its_line() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let suite = folder.path().join("mine.toml");
    let text = "title = \"Mine\"\n\n[training]\nstps = 10\n\n[[architecture]]\nname = \"faulty\"\n\n[[task]]\nname = \"parity\"\ntrain_length = 16\nlengths = [16]\n";
    std::fs::write(&suite, text).expect("writable");
    let suite = suite.to_string_lossy();
    let out = folder.path().join("out");
    with_faulty(&format!("run {suite} --out {}", out.display()))
        .expect(2)
        .complains(&["mine.toml", "4", "`stps`", "`steps`"]);
    std::fs::write(
        folder.path().join("mine.toml"),
        text.replace("stps", "steps"),
    )
    .expect("ok");
    with_faulty(&format!("run {suite} --out {}", out.display())).expect(0);
}

#[test]
fn values_out_of_range_name_their_limits() {
    let folder = Folder::default();
    let out = folder.out();
    let cases: &[(&str, &[&str])] = &[
        (
            "faulty:after=-1 --task parity --lengths 16",
            &["`after`", "0..1073741824"],
        ),
        (
            "faulty:after=many --task parity --lengths 16",
            &["`after`", "integer", "`many`"],
        ),
        (
            "faulty:decay=1.5 --task parity --lengths 16",
            &["`decay`", "0.01..0.99"],
        ),
        (
            "faulty --task modular-arithmetic:modulus=65 --lengths 16",
            &["modulus", "64"],
        ),
        (
            "faulty --task mqar:pairs=8 --train-length 64 --lengths 16",
            &["mqar", "16", "32"],
        ),
        ("faulty --task parity --lengths 0", &["0"]),
        (
            "faulty --task parity --lengths 2097152",
            &["2097152", "1048576"],
        ),
        ("faulty --task parity --lengths 64..16", &["64..16"]),
        (
            "faulty --task parity --lengths 16 --device gpu",
            &["gpu", "cpu", "cuda"],
        ),
        ("faulty --task parity --lengths 16 --steps 0", &["steps"]),
    ];
    for (arguments, words) in cases {
        let arguments = format!("run --arch {arguments} --out {}", out.display());
        with_faulty(&arguments).expect(2).complains(words);
        assert!(!out.exists(), "`{arguments}` left something behind");
    }
}

#[test]
fn list_shows_every_architecture_and_its_options() {
    let ran = with_faulty("list").expect(0);
    ran.stdout
        .lines()
        .find(|line| line.contains("faulty") && line.contains("rnn") && line.contains("constant"))
        .unwrap_or_else(|| panic!("no line of faulty in:\n{}", ran.stdout));
    assert_reads_well(&ran);
    for own in ["transformer", "mamba", "mamba2", "lstm", "hybrid"] {
        assert!(
            ran.stdout.contains(own),
            "`{own}` is missing in:\n{}",
            ran.stdout
        );
    }
    // The widest table of options; a citation's lines are its own.
    let hybrid = longhaul(["list", "hybrid"]).expect(0);
    let (options, _) = hybrid.stdout.split_once("Cite:").expect("a citation");
    assert_eq!(wide_lines(options), [""; 0]);
    let ran = with_faulty("list faulty").expect(0);
    assert_reads_well(&ran);
    ran.prints(&[
        "fault",
        "after",
        "decay",
        "0.01..0.99",
        "0.9",
        "@misc{longhaulfaulty",
    ]);
}

#[test]
fn list_as_json_is_complete() {
    let ran = with_faulty("list faulty --json").expect(0);
    let value: serde_json::Value = serde_json::from_str(&ran.stdout).expect("one JSON document");
    let text = value.to_string();
    for part in ["\"faulty\"", "\"decay\"", "longhaul-faulty", "constant"] {
        assert!(text.contains(part), "`{part}` is missing in {text}");
    }
}

#[test]
fn tasks_and_their_examples_are_shown() {
    let names = [
        "mqar",
        "induction",
        "selective-copying",
        "copying",
        "prefix-lookup",
        "unique-copy",
        "majority",
        "parity",
        "modular-arithmetic",
        "modular-arithmetic-brackets",
        "group-words",
        "flip-flop",
        "stack",
        "listops",
        "k-hop",
        "fuzzy-recall",
        "needle",
    ];
    let ran = longhaul(["tasks"]).expect(0).prints(&names);
    assert_reads_well(&ran);
    for name in names {
        let ran = longhaul(["tasks", name]).expect(0).prints(&[name, "arXiv"]);
        assert_reads_well(&ran);
        let ran = longhaul(["show", name]).expect(0);
        assert_reads_well(&ran);
        let again = longhaul(["show", name]).expect(0);
        assert_eq!(
            ran.stdout, again.stdout,
            "the same coordinates, the same example"
        );
    }
    let other = longhaul(["show", "parity", "--length", "24", "--index", "1"]).expect(0);
    let first = longhaul(["show", "parity", "--length", "24", "--index", "0"]).expect(0);
    assert_ne!(first.stdout, other.stdout);
    longhaul(["show", "needle", "--length", "2"])
        .expect(2)
        .complains(&["needle", "2"]);
    // Every allowed option makes an example in bounded time.
    longhaul(["show", "mqar:pairs=16,power_a=10", "--length", "64"]).expect(0);
}

#[test]
fn suites_say_what_they_are_for_and_how_long_they_take() {
    let names = [
        "quick",
        "smoke",
        "niah",
        "ruler-tokens",
        "mqar",
        "published",
    ];
    let ran = longhaul(["suites"]).expect(0).prints(&names);
    assert_reads_well(&ran);
    ran.prints(&["longhaul check", "minutes on two cores", "15 models"]);
    longhaul(["run", "--help"])
        .expect(0)
        .prints(&["smoke", "longhaul suites"]);
}

/// Few samples leave depths out, and a folder of an earlier version of a task is refused by name.
#[test]
fn few_samples_and_old_tasks_are_said() {
    let folder = Folder::default();
    let out = folder.out();
    let run = format!(
        "run --arch faulty --task needle --train-length 64 --lengths 64 --steps 1 --batch 1 --d-model 8 \
         --layers 1 --samples 5 --out {}",
        out.display()
    );
    with_faulty(&run)
        .expect(0)
        .complains(&["5 samples", "needle", "11 or more"]);
    let record = out.join("run.toml");
    let text = std::fs::read_to_string(&record).expect("a record");
    let old = "depth=random,haystack=repeat,keys=1,value=word";
    let now = "depth=grid,haystack=repeat,key=word,keys=1,queries=1,train_depth=uniform,value=word,values=1,version=3";
    assert!(text.contains(now), "{text}");
    std::fs::write(&record, text.replace(now, old)).expect("an old record");
    with_faulty(&format!("eval {} --lengths 128", out.display()))
        .expect(2)
        .complains(&["needle", "depth=random", "version 3"]);
}

#[test]
fn a_shown_example_of_parity_is_right() {
    for index in ["0", "1", "2", "3"] {
        let ran = longhaul(["show", "parity", "--length", "12", "--index", index]).expect(0);
        let bits = |line: &&str| {
            let mut words = line.split_whitespace().peekable();
            words.peek().is_some() && words.all(|word| word == "0" || word == "1")
        };
        let lines: Vec<&str> = ran.stdout.lines().filter(bits).collect();
        let [tokens, answer] = lines[..] else {
            panic!("a line of bits and one of the answer:\n{}", ran.stdout);
        };
        let tokens: Vec<u32> = tokens
            .split(' ')
            .map(|bit| bit.parse().expect("a bit"))
            .collect();
        assert_eq!(tokens.len(), 12);
        let parity = tokens.iter().sum::<u32>() % 2;
        assert_eq!(answer.trim(), parity.to_string(), "{}", ran.stdout);
        assert_eq!(
            answer.len(),
            "0 ".len() * 11 + 1,
            "it stands below the last bit"
        );
    }
}

#[test]
fn devices_speak_of_the_processor_and_of_cuda_without_panicking() {
    let ran = longhaul(["devices"]).expect(0).prints(&["cpu", "cuda"]);
    assert!(!ran.stderr.contains("panicked"), "{}", ran.stderr);
    assert_reads_well(&ran);
}

#[test]
fn bench_prints_one_json_line_with_its_fields() {
    for mode in ["train", "feed", "step"] {
        let ran = with_faulty(&format!(
            "bench --arch faulty --mode {mode} --batch 2 --length 16 --d-model 8 --layers 1 --vocab 32 --threads 1 --seconds 0.2"
        ))
        .expect(0);
        assert_eq!(ran.stdout.trim().lines().count(), 1, "{}", ran.stdout);
        let line: serde_json::Value = serde_json::from_str(ran.stdout.trim()).expect("JSON");
        for (field, expected) in [("batch", 2), ("length", 16), ("vocab", 32), ("layers", 1)] {
            assert_eq!(line[field], expected, "{line}");
        }
        assert_eq!(
            (&line["mode"], &line["parameters"]),
            (&mode.into(), &520.into())
        );
        for field in [
            "tokens_per_second",
            "peak_memory_bytes",
            "seconds",
            "repetitions",
        ] {
            assert!(
                line[field].as_f64().is_some_and(|value| value > 0.0),
                "{field} in {line}"
            );
        }
    }
}

#[test]
fn eval_reads_saved_models_at_new_lengths() {
    let folder = Folder::default();
    longhaul(folder.run(&["", "decay=0.5"], "16", &[])).expect(0);
    let out = folder.out();
    let out = out.to_string_lossy();
    let before = folder.results();
    with_faulty(&format!("eval {out} --lengths 16,64")).expect(0);
    let after = folder.results();
    assert_eq!(after.len(), 4, "one new length for each model");
    for row in &before {
        assert!(after.contains(row), "lost or measured again: {row:?}");
    }
    // The same model, measured in one go, gives the same values.
    let whole = Folder::default();
    longhaul(whole.run(&["", "decay=0.5"], "16,64", &[])).expect(0);
    let values = |folder: &Folder| {
        let mut rows: Vec<_> = folder
            .results()
            .into_iter()
            .map(|row| {
                [
                    &row["options"],
                    &row["eval_length"],
                    &row["value"],
                    &row["nll"],
                ]
                .map(String::clone)
            })
            .collect();
        rows.sort();
        rows
    };
    assert_eq!(values(&folder), values(&whole));
    // What is measured stays, whatever else is asked for, and that is said.
    with_faulty(&format!("eval {out} --lengths 16,64 --samples 20"))
        .expect(0)
        .complains(&["nothing to evaluate"]);
    with_faulty(&format!("eval {out} --lengths 16 --samples 7"))
        .expect(0)
        .complains(&["16 tokens", "20 examples", "--samples 7"]);
    longhaul(["eval", "/nowhere/run", "--lengths", "64"])
        .expect(2)
        .complains(&["/nowhere/run"]);
}

#[test]
fn a_run_leaves_everything_it_should() {
    let folder = Folder::default();
    let ran = longhaul(folder.run(&["", "decay=0.5"], "16,32", &[])).expect(0);
    assert_reads_well(&ran);
    for name in ["results.csv", "training.csv", "summary.csv", "run.toml"] {
        let length = std::fs::metadata(folder.file(name)).map_or(0, |meta| meta.len());
        assert!(length > 0, "{name} is missing or empty");
    }
    let ends = |folder: &str, end: &str| {
        let entries = std::fs::read_dir(folder).map(|entries| {
            entries
                .flatten()
                .filter(|entry| entry.path().to_string_lossy().ends_with(end))
                .count()
        });
        entries.unwrap_or(0)
    };
    let models = folder.file("models");
    assert_eq!(ends(&models.to_string_lossy(), ".safetensors"), 2);
    assert!(ends(&folder.file("plots").to_string_lossy(), ".svg") >= 1);
    let text = std::fs::read_to_string(folder.file("run.toml")).expect("readable");
    let run: toml::Table = text.parse().expect("TOML");
    assert!(
        !run.is_empty() && text.contains("--task parity"),
        "the exact command:\n{text}"
    );

    let header = std::fs::read_to_string(folder.file("results.csv")).expect("readable");
    let columns = "run_id,unit,plugin,plugin_version,plugin_sha256,architecture,options,checkpoint,checkpoint_sha256,parameters,task,task_options,seed,train_length_min,train_length,train_distribution,train_steps,batch,learning_rate,warmup_steps,weight_decay,clip_norm,split,eval_length,label,metric,samples,correct,value,value_sd,value_low,value_high,interval,chance,nll,state_bytes,peak_memory_bytes,seconds,tokens_per_second,device,status,reason";
    assert_eq!(header.lines().next(), Some(columns));
    for row in folder.results() {
        assert_eq!(row["plugin"], "longhaul-faulty");
        assert_eq!(row["plugin_sha256"].len(), 64);
        let number = |column: &str| row[column].parse::<f64>().expect(column);
        assert!(number("peak_memory_bytes") > 1e6 && number("seconds") > 0.0);
        let unit = folder.file(&format!("outcomes/{}.csv", row["unit"]));
        let mut outcomes = longhaul_tests::host::rows(&unit);
        outcomes.retain(|cell| cell["eval_length"] == row["eval_length"]);
        let [cell] = outcomes.as_slice() else {
            panic!("one cell in {}", unit.display());
        };
        assert_eq!(
            (&cell["split"], &cell["metric"]),
            (&row["split"], &row["metric"])
        );
        let all = |text: &str| -> f64 {
            text.split(' ')
                .map(|one| one.parse::<f64>().expect("a number"))
                .sum()
        };
        let scores: f64 = match cell["scores"].contains(' ') {
            true => all(&cell["scores"]),
            false => all(&cell["scores"]) * cell["examples"].parse::<f64>().expect("a number"),
        };
        assert_eq!(scores, number("correct"));
    }
    let training = longhaul_tests::host::rows(&folder.file("training.csv"));
    let steps: Vec<u64> = training
        .iter()
        .map(|row| row["step"].parse().expect("step"))
        .collect();
    assert!(
        steps.contains(&0) && (steps.contains(&11) || steps.contains(&12)),
        "{steps:?}"
    );
}

#[test]
fn shells_and_man_know_the_command_line() {
    for (shell, words) in [
        ("bash", "complete -F"),
        ("zsh", "#compdef longhaul"),
        ("fish", "complete -c longhaul"),
    ] {
        longhaul(["completions", shell])
            .expect(0)
            .prints(&[words, "retry-failed"]);
    }
    let folder = tempfile::tempdir().expect("a folder");
    let pages = folder.path().join("pages");
    longhaul(["man", &pages.to_string_lossy()])
        .expect(0)
        .prints(&["pages are in"]);
    for name in COMMANDS {
        let page = std::fs::read_to_string(pages.join(format!("longhaul-{name}.1")));
        let page = page.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(
            page.contains("Examples") || *name == "devices",
            "{name}:\n{page}"
        );
    }
    assert!(!pages.join("longhaul-worker.1").exists());
}
