//! Nothing that was measured is lost: interrupted, killed, full and disturbed runs go on to the same results as one
//! that was left alone.

use std::fs;
use std::path::Path;
use std::process::Command;

use longhaul_tests::build;
use longhaul_tests::host::{
    Folder, Row, command, finish, longhaul, rows, signal, wait_until, words,
};

/// Units that take long enough to be interrupted among others that do not.
const UNITS: &[&str] = &[
    "",
    "fault=slow-feed",
    "decay=0.5",
    "fault=slow-feed,decay=0.5",
    "decay=0.8",
];
const LENGTHS: &str = "16,32,64,128";

/// What a record says that must not depend on how a run came to its end.
fn lasting(mut rows: Vec<Row>) -> Vec<Row> {
    for row in &mut rows {
        for column in ["seconds", "tokens_per_second", "peak_memory_bytes"] {
            row.remove(column);
        }
    }
    rows
}

fn uninterrupted() -> Vec<Row> {
    let folder = Folder::default();
    longhaul(folder.run(UNITS, LENGTHS, &[])).expect(0);
    let results = lasting(folder.results());
    assert_eq!(results.len(), UNITS.len() * 4);
    results
}

/// Starts a run and returns it once `count` records are on disk.
fn started(folder: &Folder, count: usize) -> std::process::Child {
    let child = command(folder.run(UNITS, LENGTHS, &[])).spawn();
    let child = child.expect("the binary starts");
    let results = folder.file("results.csv");
    wait_until("records on disk", || {
        fs::read_to_string(&results).is_ok_and(|text| text.lines().count() > count)
    });
    child
}

/// Whole records in a `results.csv` whose last line may be cut off.
fn whole_records(path: &Path) -> usize {
    let text = fs::read_to_string(path).expect("readable");
    text.matches('\n').count() - 1
}

/// Every process that another one has started.
fn children(process: u32) -> Vec<u32> {
    let all = fs::read_dir("/proc").expect("readable").flatten();
    let ids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let parent = |id: &u32| {
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        let after_name = stat.rsplit(") ").next().unwrap_or_default();
        let field = after_name.split_whitespace().nth(1);
        field.and_then(|parent| parent.parse::<u32>().ok())
    };
    ids.filter(|id| parent(id) == Some(process)).collect()
}

fn is_alive(process: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let state = status
        .rsplit(") ")
        .next()
        .and_then(|rest| rest.chars().next());
    state.is_some_and(|state| state != 'Z' && state != 'X')
}

#[test]
fn the_same_run_gives_the_same_results_whatever_the_number_of_workers() {
    let folder = Folder::default();
    longhaul(folder.run(UNITS, LENGTHS, &["--jobs", "1"])).expect(0);
    assert_eq!(lasting(folder.results()), uninterrupted());
}

#[test]
fn an_interrupted_run_says_how_to_resume_and_resumes_to_the_same_results() {
    let folder = Folder::default();
    let child = started(&folder, 3);
    signal(child.id(), "INT");
    let ran = finish(child).expect(130).complains(&["--resume"]);
    let kept = whole_records(&folder.file("results.csv"));
    assert!(
        (3..UNITS.len() * 4).contains(&kept),
        "{kept} records:\n{}",
        ran.stderr
    );
    longhaul(folder.run(UNITS, LENGTHS, &["--resume"])).expect(0);
    assert_eq!(lasting(folder.results()), uninterrupted());
}

#[test]
fn a_killed_run_leaves_no_worker_and_resumes_to_the_same_results() {
    let folder = Folder::default();
    let child = started(&folder, 2);
    let workers = children(child.id());
    signal(child.id(), "KILL");
    assert_eq!(finish(child).code, None);
    assert!(!workers.is_empty(), "it had workers");
    wait_until("the workers are gone", || {
        !workers.iter().copied().any(is_alive)
    });
    let before = fs::read_to_string(folder.file("results.csv")).expect("readable");
    longhaul(folder.run(UNITS, LENGTHS, &["--resume"])).expect(0);
    assert_eq!(lasting(folder.results()), uninterrupted());
    // What was measured before stands unchanged, its times included: it was not measured again.
    let after = fs::read_to_string(folder.file("results.csv")).expect("readable");
    let whole = before.rsplit_once('\n').expect("a header at least").0;
    for line in whole.lines() {
        assert!(after.lines().any(|kept| kept == line), "lost: {line}");
    }
}

/// A host that was stopped hears first what was said meanwhile, and its absence counts against no limit.
#[test]
fn a_stopped_host_goes_on_as_if_nothing_had_been() {
    let folder = Folder::default();
    let options = ["fault=slow-feed"];
    let child = command(folder.run(&options, LENGTHS, &["--time-limit", "3"])).spawn();
    let child = child.expect("the binary starts");
    let results = folder.file("results.csv");
    wait_until("a first record", || {
        fs::read_to_string(&results).is_ok_and(|text| text.lines().count() > 1)
    });
    signal(child.id(), "STOP");
    std::thread::sleep(std::time::Duration::from_secs(4));
    signal(child.id(), "CONT");
    finish(child).expect(0);
}

#[test]
fn a_torn_last_line_costs_one_record_which_is_measured_again() {
    let folder = Folder::default();
    longhaul(folder.run(UNITS, LENGTHS, &[])).expect(0);
    let path = folder.file("results.csv");
    let whole = fs::read_to_string(&path).expect("readable");
    let reference = lasting(folder.results());
    fs::write(&path, &whole[..whole.len() - 40]).expect("writable");
    longhaul(folder.run(UNITS, LENGTHS, &["--resume"]))
        .expect(0)
        .complains(&["results.csv", "last line"]);
    assert_eq!(lasting(folder.results()), reference);
}

#[test]
fn a_folder_of_another_run_is_left_alone() {
    let folder = Folder::default();
    longhaul(folder.run(&[""], "16", &[])).expect(0);
    let before = fs::read(folder.file("results.csv")).expect("readable");
    let out = folder.out();
    let name = out.to_string_lossy();
    for more in [&["--steps", "13"][..], &["--steps", "13", "--resume"]] {
        let ran = longhaul(folder.run(&[""], "16", more)).expect(2);
        let ran = ran.complains(&[&name, "run"]);
        if more.contains(&"--resume") {
            ran.complains(&["steps", "12", "13"]);
        } else {
            ran.complains(&["--resume", "--out"]);
        }
    }
    assert_eq!(
        fs::read(folder.file("results.csv")).expect("readable"),
        before
    );
    // The very same run, resumed, has nothing left to do.
    longhaul(folder.run(&[""], "16", &["--resume"])).expect(0);
    assert_eq!(
        fs::read(folder.file("results.csv")).expect("readable"),
        before
    );
}

#[test]
fn a_folder_with_other_files_is_left_alone() {
    let folder = Folder::default();
    fs::create_dir_all(folder.out()).expect("writable");
    fs::write(folder.file("results.csv"), "mine,not,yours\n1,2,3\n").expect("writable");
    let ran = longhaul(folder.run(&[""], "16", &["--resume"]));
    assert!(matches!(ran.code, Some(2 | 3)), "{ran:?}");
    let text = fs::read_to_string(folder.file("results.csv")).expect("readable");
    assert_eq!(text, "mine,not,yours\n1,2,3\n");
}

#[test]
fn two_runs_on_one_folder_do_not_mix() {
    let folder = Folder::default();
    let first = started(&folder, 1);
    let holder = first.id().to_string();
    longhaul(folder.run(UNITS, LENGTHS, &["--resume"]))
        .expect(3)
        .complains(&[&folder.out().to_string_lossy(), &holder]);
    finish(first).expect(0);
    assert_eq!(lasting(folder.results()), uninterrupted());
}

/// Lengths enough for a `results.csv` far larger than the limit below.
fn many_lengths() -> String {
    let lengths: Vec<String> = (1..=60).map(|n| (n * 2).to_string()).collect();
    lengths.join(",")
}

#[test]
fn a_full_disk_is_named_and_what_was_measured_is_kept() {
    let folder = Folder::default();
    let lengths = many_lengths();
    // Files of at most 16 KiB: what a full disk does to the one that grows. The signal that the limit also
    // sends is ignored, as the shell's child inherits.
    let output = Command::new("bash")
        .args(["-c", "trap '' XFSZ; ulimit -f 16; exec \"$0\" \"$@\""])
        .arg(build::longhaul())
        .args(folder.run(&[""], &lengths, &[]))
        .env_remove("LONGHAUL_PLUGIN_PATH")
        .output()
        .expect("bash starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{said}");
    for word in ["results.csv", "--resume"] {
        assert!(said.contains(word), "`{word}` is missing in:\n{said}");
    }
    let text = fs::read_to_string(folder.file("results.csv")).expect("readable");
    assert!(text.ends_with('\n'), "no torn line is left");
    let kept = rows(&folder.file("results.csv"));
    assert!((10..60).contains(&kept.len()), "{} records", kept.len());
    longhaul(folder.run(&[""], &lengths, &["--resume"])).expect(0);
    let results = folder.results();
    assert_eq!(results.len(), 60);
    for row in kept {
        assert!(results.contains(&row), "lost: {row:?}");
    }
}

#[test]
fn a_folder_that_cannot_be_written_is_an_error_before_any_work() {
    let out = ["--out", "/proc/longhaul"];
    longhaul(Folder::default().run(&[""], "16", &out))
        .expect(3)
        .complains(&["/proc/longhaul"]);
}

/// A run is resumed and evaluated under the variables that change what is computed, and says how.
#[test]
fn other_vectors_are_another_run() {
    let folder = Folder::default();
    longhaul(folder.run(&[""], "16", &[])).expect(0);
    let under = |arguments: Vec<String>| {
        let child = command(arguments).env("LONGHAUL_SIMD", "v3").spawn();
        finish(child.expect("the binary starts"))
    };
    under(folder.run(&[""], "16", &["--resume"]))
        .expect(2)
        .complains(&[
            "LONGHAUL_SIMD is not set there and v3 here",
            "env -u LONGHAUL_SIMD ",
        ]);
    let out = folder.out();
    let out = out.to_str().expect("a plain path");
    let eval = ["eval", out, "--lengths", "32"].map(str::to_owned);
    under(eval.to_vec())
        .expect(2)
        .complains(&["LONGHAUL_SIMD is not set there and v3 here"]);
    let manifest = fs::read_to_string(folder.file("run.toml")).expect("readable");
    assert!(!manifest.contains("[environment]"));
    let other = Folder::default();
    under(other.run(&[""], "16", &[])).expect(0);
    let manifest = fs::read_to_string(other.file("run.toml")).expect("readable");
    assert!(
        manifest.contains("[environment]\nLONGHAUL_SIMD = \"v3\""),
        "{manifest}"
    );
}

/// On the processor as on a card: another id, the variable in the manifest, and losses that differ from float32's but
/// not with the number of threads.
#[test]
fn products_of_bfloat16_are_another_run() {
    let run = |products: &str, threads: &str| {
        let folder = Folder::default();
        let mut arguments: Vec<String> = words(
            "run --arch mamba2 --task parity --train-length 64 --lengths 64 --seeds 1 --lr 1e-3 --steps 4 \
             --batch 8 --d-model 32 --layers 1 --samples 4 --device cpu --quiet",
        );
        arguments.extend(["--threads", threads, "--out"].map(str::to_owned));
        arguments.push(folder.out().to_string_lossy().into_owned());
        let child = command(arguments)
            .env("LONGHAUL_PRODUCTS", products)
            .spawn();
        (folder, finish(child.expect("the binary starts")))
    };
    let losses = |folder: &Folder| {
        let rows = rows(&folder.file("training.csv")).into_iter();
        let losses: Vec<String> = rows
            .map(|mut row| row.remove("loss").expect("a loss"))
            .collect();
        assert!(!losses.is_empty());
        losses
    };
    let id = |folder: &Folder| {
        let manifest = fs::read_to_string(folder.file("run.toml")).expect("readable");
        let id = manifest.lines().find(|line| line.starts_with("run_id"));
        (
            id.expect("an id").to_owned(),
            manifest.contains("LONGHAUL_PRODUCTS = \"bf16\""),
        )
    };
    let [float32, bf16, alone] =
        [("float32", "2"), ("bf16", "2"), ("bf16", "1")].map(|(products, threads)| {
            let (folder, ran) = run(products, threads);
            ran.expect(0);
            folder
        });
    assert_eq!(losses(&bf16), losses(&alone));
    assert_ne!(losses(&bf16), losses(&float32));
    assert!(id(&bf16).1 && !id(&float32).1);
    assert_ne!(id(&bf16).0, id(&float32).0);
    let (tf32, ran) = run("tf32", "2");
    ran.expect(1);
    let records = fs::read_to_string(tf32.file("results.csv")).expect("readable");
    assert!(
        records.contains("LONGHAUL_PRODUCTS=tf32 asks for products on tensor cores"),
        "{records}"
    );
}

/// Names of the files in a run's folder of models.
fn models(folder: &Folder) -> Vec<String> {
    let entries = fs::read_dir(folder.file("models")).into_iter().flatten();
    let names = entries
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> = names.filter(|name| !name.starts_with('.')).collect();
    names.sort();
    names
}

/// The files of trainings that are not over, with their contents.
fn unfinished(folder: &Folder) -> Vec<(String, Option<Vec<u8>>)> {
    let names = models(folder).into_iter();
    names
        .filter(|name| name.ends_with(".training"))
        .map(|name| {
            let content = fs::read(folder.file("models").join(&name)).ok();
            (name, content)
        })
        .collect()
}

/// Trainings that are long enough to be killed, and kept after every step.
const SAVED: &[&str] = &["--steps", "400", "--save-every", "0"];

/// Carries out a run, and the same one killed again and again, each time in the middle of another training: both
/// folders hold the same bytes. Returns the undisturbed one.
fn killed_and_whole(
    arguments: &dyn Fn(&Folder, &[&str]) -> Vec<String>,
    trainings: usize,
) -> Folder {
    let whole = Folder::default();
    longhaul(arguments(&whole, &[])).expect(0);
    let killed = Folder::default();
    let mut kills = 0;
    let ran = loop {
        let more: &[&str] = if kills > 0 {
            &["-v", "--resume"]
        } else {
            &["-v"]
        };
        let before = unfinished(&killed);
        let mut child = command(arguments(&killed, more))
            .spawn()
            .expect("the binary starts");
        let mut is_over = || child.try_wait().is_ok_and(|ended| ended.is_some());
        wait_until("a training that is kept at another step", || {
            let mut now = unfinished(&killed).into_iter();
            now.any(|kept| !before.contains(&kept)) || is_over()
        });
        if kills == 6 || is_over() {
            break finish(child).expect(0);
        }
        signal(child.id(), "KILL");
        child.wait().expect("it ends");
        kills += 1;
    };
    assert!(kills > 2, "{kills} kills");
    ran.complains(&["training goes on at step"]);
    same_bytes(&whole, &killed, trainings);
    whole
}

/// Two folders of one run have the same models and records.
fn same_bytes(one: &Folder, other: &Folder, trainings: usize) {
    let names = models(one);
    assert_eq!((names.len(), models(other)), (trainings, names.clone()));
    for name in names {
        let [one, other] =
            [one, other].map(|folder| fs::read(folder.file("models").join(&name)).unwrap());
        assert!(one == other, "{name} differs");
    }
    for file in ["results.csv", "training.csv", "summary.csv"] {
        let [one, other] = [one, other].map(|folder| lasting(rows(&folder.file(file))));
        assert_eq!(one, other, "{file}");
    }
}

#[test]
fn a_training_that_was_killed_goes_on_to_the_same_bytes() {
    let arguments = |folder: &Folder, more: &[&str]| {
        let mut all = folder.run(&["", "decay=0.5"], "16,32", SAVED);
        // A model whose sequences start from the states that the batch before ended with, and one that starts afresh.
        for architecture in ["lstm:initial_state=passed", "lstm"] {
            all.extend(["--arch".to_owned(), architecture.to_owned()]);
        }
        all.extend(more.iter().map(|&word| word.to_owned()));
        all
    };
    killed_and_whole(&arguments, 4);
}

/// Each distribution of training lengths is a model and a curve of its own, whose data is where it was when its
/// training was killed, at any number of workers and threads.
#[test]
fn trainings_by_three_distributions_of_lengths_go_on_to_the_same_bytes() {
    let arguments = |folder: &Folder, more: &[&str]| {
        let lengths = [
            "--train-length",
            "4..16",
            "--train-distribution",
            "fixed,uniform,curriculum",
        ];
        let mut all = folder.run(&[], "16,32", &[SAVED, &lengths].concat());
        all.extend(["--arch", "lstm"].map(str::to_owned));
        all.extend(more.iter().map(|&word| word.to_owned()));
        all
    };
    let whole = killed_and_whole(&arguments, 3);
    let alone = Folder::default();
    let mut otherwise = arguments(&alone, &[]);
    for (option, value) in [("--jobs", "1"), ("--threads", "2")] {
        let place = otherwise
            .iter()
            .position(|word| word == option)
            .expect(option);
        otherwise[place + 1] = value.to_owned();
    }
    longhaul(otherwise).expect(0);
    same_bytes(&whole, &alone, 3);
    let of = |file: &str, column: &str| -> Vec<String> {
        let mut all: Vec<String> = rows(&whole.file(file))
            .iter()
            .map(|row| row[column].clone())
            .collect();
        all.dedup();
        all
    };
    let distributions = ["fixed", "uniform", "curriculum:0.5"];
    for file in ["results.csv", "training.csv", "summary.csv"] {
        assert_eq!(of(file, "train_distribution"), distributions, "{file}");
    }
    assert_eq!(of("results.csv", "train_length_min"), ["16", "4"]);
    // They differ as they are trained on other sequences.
    assert_eq!(of("training.csv", "unit").len(), 3);
    let table = fs::read_to_string(whole.file("table.txt")).expect("a table");
    for distribution in distributions {
        let name = format!("lstm:lengths={distribution}");
        assert!(table.contains(&name), "{table}");
    }
    let plot = fs::read_to_string(whole.file("plots/accuracy-parity.svg")).expect("a plot");
    assert!(plot.contains("lstm:lengths=curriculum:0.5"));
    let (run, out) = (whole.out(), whole.out().with_file_name("again"));
    let again = ["reproduce".into(), run, "--out".into(), out];
    longhaul(again).expect(0).prints(&["Reproduced to the bit"]);
}

/// An option of evaluations changes what is read of a model and nothing of its training, also of a model that is read
/// back from the disk.
#[test]
fn options_of_evaluations_leave_trainings_as_they_are() {
    let arguments = |folder: &Folder, lengths: &str, more: &[&str]| {
        let mut all = folder.run(&[], lengths, &["--samples", "40"]);
        for architecture in [
            "transformer",
            "transformer:eval.window=2",
            "transformer:window=2",
        ] {
            all.extend(["--arch".to_owned(), architecture.to_owned()]);
        }
        all.extend(more.iter().map(|&word| word.to_owned()));
        all
    };
    let folder = Folder::default();
    longhaul(arguments(&folder, "16,64", &[])).expect(0);
    let of = |rows: Vec<Row>, options: &str, column: &str| -> Vec<String> {
        let own = rows.into_iter().filter(|row| {
            let words = row["options"].split(',');
            let mut told = words.filter(|word| word.contains("window"));
            told.next() == Some(options).filter(|options| !options.is_empty())
        });
        own.map(|mut row| row.remove(column).expect("a column"))
            .collect()
    };
    let loss = |options: &str| of(rows(&folder.file("training.csv")), options, "loss");
    let nll = |options: &str| of(folder.results(), options, "nll");
    assert_eq!(loss("eval.window=2"), loss(""));
    assert_ne!(loss("window=2"), loss(""));
    let read = nll("eval.window=2");
    assert!(read.len() == 2 && read != nll("") && read != nll("window=2"));
    let model = |options: &str| {
        let unit = of(folder.results(), options, "unit").remove(0);
        (unit, options.to_owned())
    };
    assert_ne!(model("eval.window=2").0, model("").0);
    // Read back: the window of evaluations is that of the model which was saved by another's training.
    let out = folder.out();
    let out = out.to_str().expect("UTF-8");
    longhaul([
        "eval",
        out,
        "--lengths",
        "32",
        "--arch",
        "transformer:eval.window=2",
    ])
    .expect(0);
    let again = Folder::default();
    longhaul(arguments(&again, "16,32,64", &[])).expect(0);
    let at_32 = |folder: &Folder| -> Vec<String> {
        let own = folder
            .results()
            .into_iter()
            .filter(|row| row["eval_length"] == "32" && row["options"].contains("eval.window=2"));
        own.map(|mut row| row.remove("nll").expect("a column"))
            .collect()
    };
    assert_eq!(at_32(&folder), at_32(&again));
    assert_eq!(at_32(&folder).len(), 1);
    // What needs other parameters is refused before anything is trained.
    let none = Folder::default();
    let mut other = none.run(&[], "16", &[]);
    other.extend(["--arch", "transformer:eval.mlp=none"].map(str::to_owned));
    longhaul(other).expect(1);
    let reason = &none.results()[0]["reason"];
    assert!(reason.contains("other parameters"), "{reason}");
    longhaul(["bench", "--arch", "lstm:eval.hidden=4"]).expect(2);
}
