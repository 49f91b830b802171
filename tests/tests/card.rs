//! The whole program on a card: the host, workers, plugins and the kit's driver, on the simulated CUDA driver.
//! Faults of a card cost their own records and nothing else.

use std::fs;
use std::path::Path;

use longhaul_tests::card;
use longhaul_tests::host::{Folder, Ran, Row, command, finish, rows};

/// Runs the binary with a simulated card and these variables.
fn on_card(arguments: &str, variables: &[(&str, &str)]) -> Ran {
    let mut command = command(arguments.split_whitespace());
    card::give(&mut command).envs(variables.iter().copied());
    finish(command.spawn().expect("the binary starts"))
}

/// Arguments of a small run of an architecture of recurrences and one of kit operations and a scan.
fn small_run(folder: &Folder, more: &str) -> String {
    format!(
        "run --task parity --train-length 16 --lengths 16,32 --seeds 1 --lr 1e-3 --steps 12 --batch 4 --d-model 16 \
         --layers 1 --samples 20 --threads 1 --arch lstm --arch griffin --out {} {more}",
        folder.out().display()
    )
}

fn of<'a>(rows: &'a [Row], architecture: &str) -> Vec<&'a Row> {
    rows.iter()
        .filter(|row| row["architecture"] == architecture)
        .collect()
}

fn number(row: &Row, column: &str) -> f64 {
    row[column]
        .parse()
        .unwrap_or_else(|_| panic!("{column} in {row:?}"))
}

/// Every trained model's bytes, by name.
fn models(folder: &Folder) -> Vec<(String, Vec<u8>)> {
    let mut found: Vec<(String, Vec<u8>)> = fs::read_dir(folder.file("models"))
        .expect("models were kept")
        .map(|entry| {
            let entry = entry.expect("an entry can be read");
            let name = entry.file_name().to_string_lossy().into_owned();
            (name, fs::read(entry.path()).expect("a model can be read"))
        })
        .collect();
    found.sort();
    found
}

#[test]
fn devices_lists_the_cards() {
    on_card("devices", &[]).expect(0).prints(&[
        "cuda:0",
        "Simulated card 0",
        "2.0 GiB",
        "CUDA up to 13.0",
        "nvrtc",
        "cublaslt",
        "kernels",
    ]);
    let two = [
        ("SIMULATED_CUDA_CARDS", "2"),
        ("SIMULATED_CUDA_MEMORY", "3G"),
    ];
    on_card("devices", &two)
        .expect(0)
        .prints(&["cuda:0", "cuda:1", "Simulated card 1", "3.0 GiB"]);
    let none = [("CUDA_VISIBLE_DEVICES", "")];
    on_card("devices", &none)
        .expect(0)
        .prints(&["cuda", "not available"]);
}

#[test]
fn bench_times_a_model_on_a_card() {
    for mode in ["train", "feed", "step"] {
        let ran = on_card(
            &format!(
                "bench --arch lstm --device cuda:0 --mode {mode} --d-model 16 --layers 1 --batch 2 --length 16 \
                 --vocab 16 --seconds 0.1"
            ),
            &[],
        )
        .expect(0);
        let line: serde_json::Value = serde_json::from_str(&ran.stdout).expect("a line of JSON");
        assert_eq!(line["device"], "cuda:0", "{line}");
        assert!(line["tokens_per_second"].as_f64() > Some(0.0), "{line}");
    }
}

#[test]
fn a_run_on_a_card_repeats_itself_and_agrees_with_the_processor() {
    let runs = [
        "--device cuda:0 --jobs 1",
        "--device cuda:0 --jobs 2",
        "--device cpu",
    ];
    let folders = runs.map(|more| {
        let folder = Folder::default();
        on_card(&small_run(&folder, more), &[]).expect(0);
        folder
    });
    let [first, second, cpu] = folders.each_ref().map(Folder::results);
    assert_eq!(first.len(), 4);
    assert_eq!(second.len(), 4);
    for ((one, other), on_cpu) in first.iter().zip(&second).zip(&cpu) {
        assert_eq!(
            (one["status"].as_str(), one["device"].as_str()),
            ("ok", "cuda:0")
        );
        assert_eq!(on_cpu["device"], "cpu");
        for column in [
            "architecture",
            "eval_length",
            "correct",
            "value",
            "nll",
            "parameters",
        ] {
            assert_eq!(one[column], other[column], "{column}");
        }
        assert_eq!(one["parameters"], on_cpu["parameters"]);
        assert_eq!(one["state_bytes"], on_cpu["state_bytes"]);
        let (card, cpu) = (number(one, "nll"), number(on_cpu, "nll"));
        assert!(
            (card - cpu).abs() < 1e-3,
            "{card} on the card, {cpu} on the processor"
        );
    }
    let [first, second, _] = folders.each_ref();
    assert!(
        models(first) == models(second),
        "the same seed gives the same bytes"
    );
    let losses = |folder: &Folder| -> Vec<f64> {
        let points = rows(&folder.file("training.csv"));
        points.iter().map(|row| number(row, "loss")).collect()
    };
    let [card, _, cpu] = folders.each_ref().map(losses);
    assert!(card.len() >= 4 && card.len() == cpu.len());
    for (card, cpu) in card.iter().zip(&cpu) {
        assert!(
            (card - cpu).abs() < 1e-3,
            "{card} on the card, {cpu} on the processor"
        );
    }
}

/// Arguments of the smallest thing that needs every kernel of a model.
const STEP: &str = "bench --arch lstm --device cuda:0 --mode step --d-model 16 --layers 1 --batch 1 --length 4 --vocab 16 --seconds 0";

fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut all: Vec<(String, Vec<u8>)> = fs::read_dir(folder)
        .expect("the cache is there")
        .map(|entry| {
            let entry = entry.expect("an entry can be read");
            let name = entry.file_name().to_string_lossy().into_owned();
            (name, fs::read(entry.path()).expect("readable"))
        })
        .collect();
    all.sort();
    all
}

#[test]
fn kernels_are_compiled_once_and_made_again_when_damaged() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let cache = folder.path().join("kernels");
    let cache_text = cache.to_string_lossy();
    let fresh = [("LONGHAUL_KERNEL_CACHE", &*cache_text)];
    // Two processes begin with nothing at the same time.
    std::thread::scope(|scope| {
        let both = [0, 1].map(|_| scope.spawn(|| on_card(STEP, &fresh)));
        for ran in both {
            ran.join().expect("no panic").expect(0);
        }
    });
    let whole = files(&cache);
    assert!(whole.len() >= 5, "{} sources", whole.len());
    let named = |name: &String| name.ends_with(".cubin") && name.len() == 64 + 6;
    assert!(
        whole.iter().all(|(name, _)| named(name)),
        "nothing half done is left"
    );
    // What is there is used: no compiler is needed.
    let without = [fresh[0], ("CXX", "false")];
    on_card(STEP, &without).expect(0);
    // Half a file, one with another byte, and one that is empty.
    let (first, second, third) = (&whole[0], &whole[1], &whole[2]);
    fs::write(cache.join(&first.0), &first.1[..first.1.len() / 2]).expect("writable");
    let mut flipped = second.1.clone();
    flipped[5000] ^= 0x40;
    fs::write(cache.join(&second.0), flipped).expect("writable");
    fs::write(cache.join(&third.0), "").expect("writable");
    let ran = on_card(STEP, &without);
    assert_ne!(ran.code, Some(0), "damaged code was taken as it was");
    ran.complains(&["does not compile"]);
    on_card(STEP, &fresh).expect(0);
    on_card(STEP, &without).expect(0);
    let names = |files: &[(String, Vec<u8>)]| -> Vec<String> {
        files.iter().map(|(name, _)| name.clone()).collect()
    };
    assert_eq!(names(&files(&cache)), names(&whole));
}

/// Runs lstm and griffin with a fault that only lstm meets; checks that it costs lstm's records only.
fn assert_costs_lstm_only(fault: &str, name: &str) {
    let folder = Folder::default();
    let more = "--device cuda:0 --jobs 1";
    on_card(
        &small_run(&folder, more),
        &[("SIMULATED_CUDA_FAULT", fault)],
    )
    .expect(1);
    let all = folder.results();
    let (lstm, griffin) = (of(&all, "lstm"), of(&all, "griffin"));
    let statuses =
        |rows: &[&Row]| -> Vec<String> { rows.iter().map(|row| row["status"].clone()).collect() };
    assert_eq!(statuses(&lstm), ["failed", "not-run"], "{fault}");
    assert_eq!(statuses(&griffin), ["ok", "ok"], "{fault}");
    let reason = &lstm[0]["reason"];
    assert!(
        reason.contains(name) && reason.contains("training step"),
        "{reason}"
    );
    assert_eq!(lstm[0]["nll"], "");
}

#[test]
fn an_illegal_access_costs_its_own_records() {
    assert_costs_lstm_only(
        "illegal-address@lstm_backward:4",
        "CUDA_ERROR_ILLEGAL_ADDRESS",
    );
}

#[test]
fn a_lost_card_costs_its_own_records() {
    assert_costs_lstm_only("lost@lstm_forward:3", "CUDA_ERROR_DEVICE_UNAVAILABLE");
}

#[test]
fn a_card_that_is_not_there_from_the_beginning_is_a_reason() {
    let folder = Folder::default();
    let lost = [("SIMULATED_CUDA_FAULT", "lost")];
    on_card(&small_run(&folder, "--device cuda:0"), &lost).expect(1);
    for row in folder.results() {
        assert!(
            row["status"] == "failed" || row["status"] == "not-run",
            "{row:?}"
        );
        if row["status"] == "failed" {
            assert!(
                row["reason"].contains("CUDA_ERROR_DEVICE_UNAVAILABLE"),
                "{row:?}"
            );
        }
    }
}

#[test]
fn a_card_without_memory_is_out_of_memory() {
    // Too small for the workspace of products; room for that and next to nothing else.
    for memory in ["16M", "32800K"] {
        let folder = Folder::default();
        let small = [("SIMULATED_CUDA_MEMORY", memory)];
        on_card(&small_run(&folder, "--device cuda:0"), &small).expect(1);
        let all = folder.results();
        for architecture in ["lstm", "griffin"] {
            let row = of(&all, architecture)[0];
            assert_eq!(row["status"], "out-of-memory", "{memory}: {row:?}");
            assert!(
                row["reason"].contains("CUDA_ERROR_OUT_OF_MEMORY"),
                "{row:?}"
            );
        }
    }
}

#[test]
fn a_card_that_this_machine_does_not_have_is_one_sentence() {
    let folder = Folder::default();
    let words = "cuda:1 was asked for, and this machine has 1 card";
    let ran = on_card(&small_run(&folder, "--device cuda:1"), &[])
        .expect(2)
        .complains(&[words]);
    assert_eq!(ran.stderr.trim().lines().count(), 1, "{}", ran.stderr);
    assert!(!folder.out().exists());
    let bench = STEP.replace("cuda:0", "cuda:1");
    let ran = on_card(&bench, &[]);
    assert_ne!(ran.code, Some(0));
    let ran = ran.complains(&[words]);
    assert_eq!(ran.stderr.trim().lines().count(), 1, "{}", ran.stderr);
}

#[test]
fn workers_leave_nothing_on_the_card() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let log = folder.path().join("log");
    let log_text = log.to_string_lossy();
    let run = Folder::default();
    let variables = [
        ("SIMULATED_CUDA_LOG", &*log_text),
        ("SIMULATED_CUDA_CARDS", "2"),
    ];
    on_card(&small_run(&run, "--device cuda:1 --jobs 2"), &variables).expect(0);
    let log = fs::read_to_string(&log).expect("cards were used");
    let mut whats: Vec<&str> = log
        .lines()
        .filter_map(|line| Some(line.split_once(' ')?.1))
        .collect();
    whats.sort_unstable();
    assert_eq!(
        whats,
        [
            "card 1 closed",
            "card 1 closed",
            "card 1 opened",
            "card 1 opened"
        ]
    );
}
