//! Text tasks on checkpoints: answers are generated, scored and kept, alike however they were read.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use longhaul_tests::build::{fixture, workspace};
use longhaul_tests::host::{Ran, command, longhaul, rows, signal, wait_until};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};

/// Checkpoints and runs of a test, gone with it.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary folder"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A checkpoint of the plugin that goes on with the first seven digits that it read.
    fn digits(&self, name: &str, config: &str) -> PathBuf {
        let folder = self.path(name);
        fs::create_dir(&folder).expect("a new folder");
        let text = format!("{{\"model_type\": \"digits\"{config}}}");
        fs::write(folder.join("config.json"), text).expect("writable");
        let one = 1.0_f32.to_le_bytes();
        let view = TensorView::new(Dtype::F32, vec![1], &one).expect("one value");
        let bytes = safetensors::serialize([("one", view)], None).expect("serializable");
        fs::write(folder.join("model.safetensors"), bytes).expect("writable");
        folder
    }

    /// A tiny transformer with a vocabulary of bytes.
    fn transformer(&self, name: &str) -> PathBuf {
        let from = workspace().join("tests/checkpoints/llama");
        let folder = self.path(name);
        fs::create_dir(&folder).expect("a new folder");
        let config = fs::read_to_string(from.join("config.json")).expect("readable");
        let mut config: Value = serde_json::from_str(&config).expect("JSON");
        config["vocab_size"] = json!(256);
        fs::write(folder.join("config.json"), config.to_string()).expect("writable");
        let bytes = fs::read(from.join("model.safetensors")).expect("readable");
        let tensors = SafeTensors::deserialize(&bytes).expect("whole");
        let stored: Vec<(String, Vec<usize>, Vec<u8>)> = tensors
            .tensors()
            .into_iter()
            .map(|(name, view)| {
                let (mut shape, mut data) = (view.shape().to_vec(), view.data().to_vec());
                if shape[0] == 40 {
                    shape[0] = 256;
                    // Rows of its own for every byte, of values that are there.
                    let rows =
                        (0..256).flat_map(|row| data.iter().skip(4 * row).chain(&data).take(64));
                    data = rows.copied().collect();
                }
                (name, shape, data)
            })
            .collect();
        let views = stored.iter().map(|(name, shape, data)| {
            let view =
                TensorView::new(Dtype::F32, shape.clone(), data).expect("shape and bytes agree");
            (name, view)
        });
        let bytes = safetensors::serialize(views, None).expect("serializable");
        fs::write(folder.join("model.safetensors"), bytes).expect("writable");
        folder
    }

    fn arguments(&self, checkpoint: &Path, run: &str, more: &str) -> Vec<String> {
        let (checkpoint, out) = (checkpoint.display(), self.path(run));
        let plugin = fixture("reads_digits");
        format!(
            "checkpoint eval {checkpoint} --tokenizer bytes --plugin {} --out {} {more}",
            plugin.display(),
            out.display()
        )
        .split_whitespace()
        .map(str::to_owned)
        .collect()
    }

    fn eval(&self, checkpoint: &Path, run: &str, more: &str) -> Ran {
        longhaul(self.arguments(checkpoint, run, more))
    }

    /// The predictions of a run by the length that ends their file's name, a line each.
    fn predictions(&self, run: &str) -> BTreeMap<usize, Vec<Value>> {
        let files = fs::read_dir(self.path(run).join("predictions")).expect("a folder");
        let files = files.map(|entry| entry.expect("readable").path());
        let of_length = |path: PathBuf| {
            let name = path
                .file_stem()
                .expect("a name")
                .to_string_lossy()
                .into_owned();
            let length = name
                .rsplit('-')
                .next()
                .and_then(|length| length.parse().ok());
            let text = fs::read_to_string(&path).expect("readable");
            let lines = text
                .lines()
                .map(|line| serde_json::from_str(line).expect("JSON"));
            (length.expect("a length"), lines.collect())
        };
        files.map(of_length).collect()
    }

    fn cells(&self, run: &str) -> Vec<BTreeMap<String, String>> {
        rows(&self.path(run).join("results.csv"))
    }
}

fn texts(predictions: &[Value], key: &str) -> Vec<String> {
    predictions
        .iter()
        .map(|line| line[key].to_string())
        .collect()
}

#[test]
fn a_model_that_answers_right_scores_one() {
    let place = Place::new();
    let checkpoint = place.digits("digits", "");
    let more = "--task niah_single_1 --task niah_multivalue --lengths 2048,4096 --samples 12";
    place.eval(&checkpoint, "run", more).expect(0);
    let cells = place.cells("run");
    let value = |task: &str, length: &str| -> f64 {
        let found = cells.iter().find(|row| {
            row["task"] == task && row["eval_length"] == length && row["label"].is_empty()
        });
        let row = found.expect("a cell");
        assert_eq!(
            (row["status"].as_str(), row["samples"].as_str()),
            ("ok", "12")
        );
        row["value"].parse().expect("a number")
    };
    assert_eq!(
        [
            value("niah_single_1", "2048"),
            value("niah_single_1", "4096")
        ],
        [1.0, 1.0]
    );
    // One of four values that are asked for: a share, neither right nor wrong.
    assert_eq!(value("niah_multivalue", "2048"), 0.25);
    let options = &cells[0]["task_options"];
    assert!(options.contains("tokenizer=bytes"), "{options}");
    let files = fs::read_dir(place.path("run/predictions"))
        .expect("a folder")
        .count();
    assert_eq!(files, 4);
    for line in &place.predictions("run")[&4096] {
        assert_eq!(line["truncation"], -1);
        assert_eq!(line["input"], "", "a long prompt is not kept");
    }
    let manifest = fs::read_to_string(place.path("run/run.toml")).expect("readable");
    assert!(manifest.contains("tokenizer = \"bytes\""), "{manifest}");
}

#[test]
fn answers_do_not_depend_on_how_prompts_were_read() {
    let place = Place::new();
    let more = "--task niah_single_1 --lengths 1500,3000 --samples 8 --jobs 1";
    // A transformer of random weights answers nonsense, which is exactly as sensitive as sense.
    let transformer = place.transformer("transformer");
    place
        .eval(&transformer, "together", &format!("{more} --threads 2"))
        .expect(0);
    place
        .eval(&transformer, "one-thread", &format!("{more} --threads 1"))
        .expect(0);
    let together = place.predictions("together");
    assert_eq!(together, place.predictions("one-thread"));
    // The first examples alone, at one length alone: nothing is shared with what is not there.
    let alone = "--task niah_single_1 --lengths 3000 --samples 1 --jobs 1 --threads 2";
    place.eval(&transformer, "alone", alone).expect(0);
    assert_eq!(place.predictions("alone")[&3000], together[&3000][..1]);
    // A plugin that cannot fork reads every prompt from its start.
    let forks = place.digits("forks", "");
    let anew = place.digits("anew", ", \"forks\": false");
    place.eval(&forks, "forked", more).expect(0);
    place.eval(&anew, "read-anew", more).expect(0);
    assert_eq!(place.predictions("forked"), place.predictions("read-anew"));
    let read = |run: &str| -> f64 {
        let cells = place
            .cells(run)
            .into_iter()
            .filter(|row| row["label"].is_empty());
        let number = |row: &BTreeMap<String, String>, column: &str| {
            row[column].parse::<f64>().expect("a number")
        };
        cells
            .map(|row| number(&row, "tokens_per_second") * number(&row, "seconds"))
            .sum()
    };
    let (forked, anew) = (read("forked"), read("read-anew"));
    assert!(forked < 0.9 * anew, "{forked} tokens read of {anew}");
}

#[test]
fn what_a_model_cannot_read_is_refused_and_never_cut() {
    let place = Place::new();
    let short = place.digits("short", ", \"most\": 1600");
    let more = "--task niah_single_1 --lengths 1024,2048 --samples 3";
    place.eval(&short, "run", more).expect(1);
    let cells = place.cells("run");
    let cell = |length: &str| {
        cells
            .iter()
            .find(|row| row["eval_length"] == length && row["label"].is_empty())
            .expect("a cell")
    };
    assert_eq!(
        (
            cell("1024")["status"].as_str(),
            cell("1024")["value"].as_str()
        ),
        ("ok", "1.0")
    );
    let long = cell("2048");
    assert_eq!(
        (long["status"].as_str(), long["value"].as_str()),
        ("failed", "")
    );
    assert!(
        long["reason"].contains("positions end at 1600"),
        "{}",
        long["reason"]
    );
    assert_eq!(
        place.predictions("run").keys().copied().collect::<Vec<_>>(),
        [1024]
    );
}

#[test]
fn babilongs_answers_are_scored_by_its_rule() {
    let place = Place::new();
    let digits = place.digits("digits", "");
    let ran = place.eval(
        &digits,
        "books",
        "--suite babilong --lengths 3000 --samples 2",
    );
    ran.expect(0).prints(&["only label in %"]);
    let mut cells = place.cells("books");
    cells.retain(|row| row["label"].is_empty());
    assert_eq!(cells.len(), 5);
    for row in cells {
        let found = ["status", "metric", "value", "samples"].map(|column| row[column].as_str());
        assert_eq!(found, ["ok", "only_label", "0.0", "2"], "{}", row["reason"]);
    }
    // What references alone do not score is in no form of such scores.
    let (run, out) = (place.path("books"), place.path("out"));
    let words = [
        "export".as_ref(),
        run.as_os_str(),
        "--to".as_ref(),
        "ruler".as_ref(),
    ];
    longhaul([&words[..], &["--out".as_ref(), out.as_os_str()]].concat())
        .expect(2)
        .complains(&["babilong_qa1", "references alone"]);
}

#[test]
fn a_suite_records_what_cannot_be_as_not_run() {
    let place = Place::new();
    let digits = place.digits("digits", "");
    place
        .eval(
            &digits,
            "ruler",
            "--suite ruler --lengths 100,4096 --samples 2",
        )
        .expect(0)
        .prints(&["26 measurements, of which 16 not run", "reason"]);
    let cells = place.cells("ruler");
    let cells: Vec<_> = cells.iter().filter(|row| row["label"].is_empty()).collect();
    assert_eq!(cells.len(), 26);
    for row in &cells {
        let (task, reason) = (row["task"].as_str(), row["reason"].as_str());
        let wanted = match (task, row["eval_length"].as_str()) {
            ("qa_1" | "qa_2", _) => Some("--qa"),
            (_, "100") => Some("lengths"),
            // Its difficulty steps up at 4096, where bytes are too many for it.
            ("cwe", _) => Some("fixed_difficulty"),
            _ => None,
        };
        match wanted {
            None => assert_eq!(row["status"], "ok", "{task}: {reason}"),
            Some(word) => {
                assert_eq!(
                    (row["status"].as_str(), row["value"].as_str()),
                    ("not-run", ""),
                    "{task}"
                );
                assert!(reason.contains(word), "{task}: {reason}");
            }
        }
    }
    // A task that the user names is refused before anything is written.
    let more = "--task niah_single_1 --lengths 100";
    place
        .eval(&digits, "none", more)
        .expect(2)
        .complains(&["niah_single_1", "100"]);
    place
        .eval(&digits, "none", "--task qa_1 --lengths 4096")
        .expect(2)
        .complains(&["qa_1", "--qa"]);
    assert!(!place.path("none").exists());
}

#[test]
fn materials_are_named_by_hash() {
    let place = Place::new();
    let digits = place.digits("digits", "");
    let library = place.path("texts");
    fs::create_dir(&library).expect("a new folder");
    let write = |words: &str| {
        let text = format!("It was {words} that day. ").repeat(400);
        fs::write(library.join("one.txt"), text).expect("writable");
    };
    write("raining");
    let eval = |folder: &Path, run: &str, more: &str| {
        let more = format!(
            "--task niah_single_2 --lengths 1024 --samples 2 --texts {} {more}",
            folder.display()
        );
        place.eval(&digits, run, &more)
    };
    eval(&library, "run", "").expect(0);
    // The same texts elsewhere are the same run.
    let moved = place.path("moved");
    fs::rename(&library, &moved).expect("moved");
    eval(&moved, "run", "--resume").expect(0);
    fs::rename(&moved, &library).expect("moved back");
    write("snowing");
    eval(&library, "run", "--resume")
        .expect(2)
        .complains(&["there and", "texts="]);
    // A tokenizer with more token ids than the model.
    let small = workspace().join("tests/checkpoints/llama");
    let more = "--task niah_single_1 --lengths 1024 --samples 2";
    place
        .eval(&small, "small", more)
        .expect(2)
        .complains(&["tokenizer `bytes`", "256", "40"]);
    longhaul(["run", "smoke", "--task", "niah_single_1", "--dry-run"])
        .expect(2)
        .complains(&["niah_single_1", "generated", "checkpoint eval"]);
}

/// A checkpoint's chat template, its hash in what is recorded, and one that has changed.
#[test]
fn a_chat_template_stands_around_prompts_where_it_is_asked_for() {
    let place = Place::new();
    let digits = place.digits("digits", "");
    let task = "--task niah_single_1 --lengths 1024 --samples 2";
    let eval = |run: &str, more: &str| place.eval(&digits, run, &format!("{task} {more}"));
    eval("none", "--chat-template")
        .expect(2)
        .complains(&["digits/tokenizer_config.json", "chat_template"]);
    let template = |closing: &str| {
        let text = format!("<user>{{{{ messages[0].content | trim }}}}</user>{closing}");
        let config = json!({"chat_template": text}).to_string();
        fs::write(digits.join("tokenizer_config.json"), config).expect("writable");
        longhaul_text::sha256_of(text.as_bytes())
    };
    let hash = template("<answer>");
    eval("plain", "").expect(0);
    eval("chat", "--chat-template").expect(0);
    let prompts = |run: &str| texts(&place.predictions(run)[&1024], "input");
    for prompt in prompts("chat") {
        assert!(
            prompt.starts_with("\"<user>A special magic number is hidden"),
            "{prompt}"
        );
        assert!(
            prompt.contains("provided text?</user><answer> The special magic number"),
            "{prompt}"
        );
    }
    assert!(
        prompts("plain")
            .iter()
            .all(|prompt| !prompt.contains("<answer>"))
    );
    let plan = fs::read_to_string(place.path("chat/run.toml")).expect("readable");
    assert!(
        plan.contains(&format!("chat_template_sha256 = \"{hash}\"")),
        "{plan}"
    );
    let named = format!("chat_template={}", &hash[..12]);
    assert!(
        place
            .cells("chat")
            .iter()
            .all(|row| row["task_options"].contains(&named))
    );
    let units = ["plain", "chat"].map(|run| place.cells(run)[0]["unit"].clone());
    assert_ne!(units[0], units[1]);
    // The same run with and without it, and with another, is another run.
    eval("plain", "--chat-template --resume").expect(2);
    template("<other>");
    eval("chat", "--chat-template --resume").expect(2);
    eval("books", "--task books --chat-template")
        .expect(2)
        .complains(&["`books` has no prompts", "--chat-template"]);
}

#[test]
fn a_kill_costs_at_most_the_length_under_way() {
    let place = Place::new();
    let transformer = place.transformer("transformer");
    let more = "--task niah_single_1 --lengths 1024,1500,4000 --samples 4 --jobs 1 --threads 1";
    place.eval(&transformer, "whole", more).expect(0);
    let arguments = place.arguments(&transformer, "killed", more);
    let mut child = command(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    let kept = place.path("killed/predictions");
    let files = || fs::read_dir(&kept).map_or(0, |files| files.count());
    wait_until("a length is done", || files() > 0);
    signal(child.id(), "KILL");
    child.wait().expect("it ended");
    place
        .eval(&transformer, "killed", &format!("{more} --resume"))
        .expect(0);
    assert_eq!(place.predictions("killed"), place.predictions("whole"));
    let values = |run: &str| -> Vec<(String, String)> {
        let cells = place.cells(run).into_iter();
        cells
            .map(|row| {
                (
                    row["eval_length"].clone() + &row["label"],
                    row["value"].clone(),
                )
            })
            .collect()
    };
    assert_eq!(values("killed"), values("whole"));
    assert_eq!(
        texts(&place.predictions("killed")[&1024], "index"),
        ["0", "1", "2", "3"]
    );
}

#[test]
fn a_long_prompt_is_read_in_little_memory() {
    let place = Place::new();
    let digits = place.digits("digits", "");
    // 2^20 tokens of two examples are 8 MB as numbers; a worker that held them would show.
    let more = "--task niah_single_1 --lengths 2048,1048576 --samples 2 --jobs 1";
    place.eval(&digits, "run", more).expect(0);
    let peak = |length: &str| -> f64 {
        let cells = place.cells("run");
        let row = cells
            .iter()
            .find(|row| row["eval_length"] == length && row["label"].is_empty());
        row.expect("a cell")["peak_memory_bytes"]
            .parse()
            .expect("a number")
    };
    let (short, long) = (peak("2048"), peak("1048576"));
    assert!(long - short < 6e6, "{short} and {long} bytes");
}

/// The files below a folder.
fn files_below(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder");
    let paths = entries.map(|entry| entry.expect("readable").path());
    let below = paths.flat_map(|path| match path.is_dir() {
        true => files_below(&path),
        false => vec![path],
    });
    let mut below: Vec<PathBuf> = below.collect();
    below.sort();
    below
}

/// What is exported, and what the audit makes of it: by task and length the score and what the tool's own file states.
fn exported(place: &Place, run: &Path, form: &str) -> BTreeMap<(String, String), [String; 2]> {
    let out = place.path(form);
    let words = ["export".as_ref(), run.as_os_str(), "--to".as_ref()];
    longhaul(
        [
            &words[..],
            &[form.as_ref(), "--out".as_ref(), out.as_os_str()],
        ]
        .concat(),
    )
    .expect(0);
    let mut audit: Vec<PathBuf> = vec!["audit".into()];
    audit.extend(files_below(&out));
    longhaul(&audit).expect(0).prints(&["nothing was found in"]);
    audit.push("--csv".into());
    let text = longhaul(&audit).expect(0).stdout;
    let path = place.path("audit.csv");
    fs::write(&path, text).expect("writable");
    // Rows of items have both numbers: those of a summary beside them are what it states.
    let rows = rows(&path).into_iter();
    rows.filter(|row| row["file"].ends_with(".jsonl"))
        .map(|row| {
            let key = (row["task"].clone(), row["length"].clone());
            (key, [row["value"].clone(), row["stated"].clone()])
        })
        .collect()
}

#[test]
fn what_is_exported_has_the_scores_of_the_records() {
    let place = Place::new();
    let checkpoint = place.digits("digits", "");
    let more = "--task niah_single_1 --task niah_multivalue --lengths 1024,2048 --samples 7";
    place.eval(&checkpoint, "run", more).expect(0);
    let run = place.path("run");
    let number = |text: &str| -> f64 { text.parse().expect("a number") };
    for form in ["lm-eval", "ruler"] {
        let found = exported(&place, &run, form);
        let mut measured = 0;
        for row in place.cells("run") {
            if !row["label"].is_empty() || row["status"] != "ok" {
                continue;
            }
            let [value, stated] = &found[&(row["task"].clone(), row["eval_length"].clone())];
            assert!(
                (number(value) - number(&row["value"])).abs() < 1e-9,
                "{form}: {row:?}"
            );
            // RULER rounds to two digits after the point of a percentage.
            assert!(
                (number(stated) - number(&row["value"])).abs() < 1e-4,
                "{form}: {row:?}"
            );
            measured += 1;
        }
        assert_eq!(measured, found.len(), "{form}: {found:?}");
        assert!(measured >= 4, "{form}: {found:?}");
    }
    let values: Vec<String> = place
        .cells("run")
        .iter()
        .map(|row| row["value"].clone())
        .collect();
    let told_apart: std::collections::BTreeSet<&String> = values.iter().collect();
    assert!(told_apart.len() > 1, "{values:?}");
    // The same bytes each time.
    let once = files_below(&place.path("lm-eval"));
    let again = place.path("again");
    let words = format!(
        "export {} --to lm-eval --out {}",
        run.display(),
        again.display()
    );
    longhaul(words.split(' ')).expect(0);
    let again = files_below(&again);
    assert_eq!(once.len(), again.len());
    for (one, other) in once.iter().zip(&again) {
        assert_eq!(one.file_name(), other.file_name());
        assert!(
            fs::read(one).unwrap() == fs::read(other).unwrap(),
            "{}",
            one.display()
        );
    }
    longhaul(words.split(' '))
        .expect(2)
        .complains(&["is not empty"]);
}

#[test]
fn what_a_run_lacks_is_not_exported() {
    let place = Place::new();
    let checkpoint = place.digits("digits", "");
    place
        .eval(
            &checkpoint,
            "run",
            "--task niah_single_1 --lengths 2048 --samples 3",
        )
        .expect(0);
    let export = |run: &Path, form: &str| {
        let words = ["export".as_ref(), run.as_os_str(), "--to".as_ref()];
        let out = place.path("out");
        longhaul(
            [
                &words[..],
                &[form.as_ref(), "--out".as_ref(), out.as_os_str()],
            ]
            .concat(),
        )
    };
    let predictions = files_below(&place.path("run/predictions")).remove(0);
    let kept = fs::read_to_string(&predictions).expect("readable");
    fs::write(
        &predictions,
        kept.replace("\"pred\":\"", "\"pred\":\"no ").replacen(
            "\"outputs\":[\"",
            "\"outputs\":[\"not ",
            1,
        ),
    )
    .expect("writable");
    export(&place.path("run"), "ruler")
        .expect(2)
        .complains(&["they are of another evaluation"]);
    fs::remove_file(&predictions).expect("it is there");
    export(&place.path("run"), "lm-eval")
        .expect(2)
        .complains(&["the answers to niah_single_1 at 2048 tokens were not kept"]);
    let quick = workspace().join("results/reference/quick");
    export(&quick, "ruler")
        .expect(2)
        .complains(&["mqar has no generated answers"]);
    let books = workspace().join("results/reference/books");
    export(&books, "babilong")
        .expect(2)
        .complains(&["bits per byte is no accuracy"]);
    assert!(!place.path("out").exists());
    export(&quick, "babilong")
        .expect(0)
        .prints(&["Left out: lengths 32, 64, 128, 256, 512"]);
    let table = fs::read_to_string(place.path("out/all_results.csv")).expect("written");
    assert!(table.starts_with("model_name,task,1k,2k\n"), "{table}");
    longhaul([
        "audit".as_ref(),
        place.path("out/all_results.csv").as_os_str(),
    ])
    .expect(0);
}
