//! `longhaul audit` on files that five tools' own code scored (`tests/audit/make.py`): sound ones without a finding, ones with each
//! fault planted, and ones that are no result files.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use longhaul_tests::build::workspace;
use longhaul_tests::host::{Ran, assert_reads_well, longhaul};

/// The files of a kind (`sound` or `faulty`) of a tool.
fn files(kind: &str, tool: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![workspace().join("tests/audit").join(kind).join(tool)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn audit(files: &[PathBuf], more: &[&str]) -> Ran {
    let mut words: Vec<OsString> = vec!["audit".into()];
    words.extend(files.iter().map(|path| path.clone().into_os_string()));
    words.extend(more.iter().map(Into::into));
    longhaul(words)
}

/// What was printed, as one line: sentences are not broken.
fn flat(ran: &Ran) -> String {
    let words: Vec<&str> = ran.stdout.split_whitespace().collect();
    words.join(" ")
}

#[track_caller]
fn finds(ran: &Ran, sentences: &[&str]) {
    let text = flat(ran);
    for sentence in sentences {
        assert!(
            text.contains(sentence),
            "`{sentence}` is missing in:\n{text}"
        );
    }
    let findings: usize = text.matches(" ! ").count();
    assert_eq!(findings, sentences.len(), "{text}");
}

#[test]
fn sound_files_have_the_scores_that_their_tools_gave_and_no_finding() {
    for tool in ["ruler", "lm-eval", "babilong", "helmet", "longbench"] {
        let ran = audit(&files("sound", tool), &[]).expect(0);
        assert!(
            flat(&ran).contains("Nothing was found in"),
            "{tool}: {}",
            ran.stdout
        );
        let csv = audit(&files("sound", tool), &["--csv"]).expect(0).stdout;
        let mut reader = csv::Reader::from_reader(csv.as_bytes());
        let heads = reader.headers().expect("a header").clone();
        let place = |name: &str| heads.iter().position(|head| head == name).expect(name);
        let mut compared = 0;
        for row in reader.records().map(|row| row.expect("a row")) {
            let number = |name: &str| row[place(name)].parse::<f64>().ok();
            let (value, samples) = (number("value").expect("a value"), number("samples"));
            // A table of BABILong's has no number of questions.
            if let Some(samples) = samples.filter(|samples| *samples > 0.0) {
                let (low, high) = (
                    number("value_low").expect("an end"),
                    number("value_high").expect("an end"),
                );
                assert!(
                    low <= value && value <= high && high - low < 3.0 / samples.sqrt(),
                    "{row:?}"
                );
            }
            if let Some(stated) = number("stated") {
                assert!((value - stated).abs() < 1e-4, "{row:?}");
                compared += 1;
            }
        }
        // LongBench v2 has no file of scores that is read.
        assert!(
            compared > 0 || tool == "longbench",
            "{tool}: no score was held against another"
        );
    }
}

#[test]
fn faults_of_ruler_are_found() {
    let ran = audit(&files("faulty", "ruler"), &[]).expect(1);
    finds(
        &ran,
        &[
            "3 of 20 prompts were cut (`truncation`)",
            "5 of 20 prompts do not end with RULER's answer prefix (`... in the provided text are`)",
            "lines that stand there twice: 1;",
            "indices below the last that are not there: 2;",
            "2 of 18 prompts begin with `<s>` twice",
            "7 of 18 prompts begin with `<|begin_of_text|>` as text",
            "the summary says 99.00 %, and these predictions give",
            "the summary has the mean over references,",
            "vt has 18 items, others 20",
        ],
    );
    assert_reads_well(&ran);
}

#[test]
fn faults_of_lm_evaluation_harness_are_found() {
    let ran = audit(&files("faulty", "lm-eval"), &[]).expect(1);
    finds(
        &ran,
        &[
            "niah_single_2: 20 of 500 items were taken (`limit`)",
            "ruler, 4096,none: 1 of 2 tasks have -1, which is not measured, and the mean of -12.50 % counts that; without it it is 75.00 %",
            "4 of 20 prompts do not end with the task's answer prefix",
            "1 of 20 prompts do not hold their document whole",
            "2 of 20 prompts begin with `<s>` twice",
            "4096,none: the results say",
            "8192,none: the results say",
            "10 of 20 prompts are of lengths above the 4096 tokens that the model was given",
            "samples have the mean over their references for a score",
        ],
    );
}

#[test]
fn faults_of_babilong_helmet_and_longbench_are_found() {
    let ran = audit(&files("faulty", "babilong"), &[]).expect(1);
    let text = flat(&ran);
    for sentence in [
        "rows below the last that are not there: 2;",
        "rows that stand there twice: 1",
        "answers would be judged otherwise if they ended where the model asks a question of its own",
        "qa1 4k was asked in 2 ways",
        "0k: the average says 84.00 %, and its tasks give 82.00 %",
        "4k: 4 of 5 tasks have -1, which is not measured, and the average of",
    ] {
        assert!(
            text.contains(sentence),
            "`{sentence}` is missing in:\n{text}"
        );
    }
    let ran = audit(&files("faulty", "helmet"), &[]).expect(1);
    finds(
        &ran,
        &[
            "8 items of the 10 that were asked for",
            "2 of 8 prompts fill all of their 8192 tokens less 50 to generate",
            "2 of 8 prompts begin with `<s>` twice",
            "f1: 9 scores of 10 items",
            "f1: the average says 45.00 %, and its scores give 50.00 %",
            "items have the mean over their references for a score",
        ],
    );
    let ran = audit(&files("faulty", "longbench"), &[]).expect(1);
    finds(
        &ran,
        &[
            "450 of the benchmark's 503 questions are here: 53 left the denominator",
            "questions that stand there twice: 2;",
            "3 of 452 answers are judged otherwise than their response says",
        ],
    );
}

#[test]
fn a_summary_alone_gets_intervals_and_a_torn_line_is_told() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let put = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).expect("written");
        vec![path]
    };
    let summary = put(
        "summary.csv",
        "0,1,2\nTasks,vt,qa_1\nScore,50.0,20.0\nNulls,0/500,3/480\n",
    );
    finds(
        &audit(&summary, &[]).expect(1),
        &["qa_1 has 480 items, others 500: 20 may have left the denominator"],
    );
    let csv = audit(&summary, &["--csv"]).expect(1).stdout;
    assert!(csv.contains(",vt,,string_match_all,500,0.5,0.456"), "{csv}");
    let sound = &files("sound", "ruler")[3];
    let text = fs::read_to_string(sound).expect("a fixture");
    let torn = put("vt.jsonl", &text[..text.len() - 40]);
    finds(
        &audit(&torn, &[]).expect(1),
        &["line 20, the last one, is torn and does not count"],
    );
    let names = put(
        "qa_1.jsonl",
        "{\"index\": 0, \"pred\": \"\", \"input\": \"Answer:\", \"outputs\": [\"a\\u001b[2J\"]}\n",
    );
    let ran = audit(&names, &[]).expect(0);
    assert!(!ran.stdout.contains('\u{1b}'));
}

#[test]
fn what_is_no_result_file_is_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = |name: &str| folder.path().join(name);
    let refused = |path: &Path, words: &[&str]| {
        audit(&[path.to_owned()], &[]).expect(2).complains(words);
    };
    for (name, text, words) in [
        ("other.csv", "a,b\n1,2\n", "columns are those of none"),
        (
            "qa99_4k_x.csv",
            ",target,output,question\n",
            "does not begin with a task and a length",
        ),
        ("other.json", "{\"a\": 1}", "keys are those of none"),
        ("broken.json", "{\"results\": ", "broken.json: EOF"),
        ("empty.jsonl", "", "it is empty"),
        ("other.jsonl", "{\"a\": 1}\n", "keys of none"),
        ("broken.jsonl", "{\"pred\": 1}x\n{}\n", "line 1"),
        ("notes.txt", "", "ends neither"),
        (
            "summary.csv",
            "0,1\nTasks,vt\nScore,high\nNulls,0/1\n",
            "`high`, no number",
        ),
    ] {
        fs::write(path(name), text).expect("written");
        refused(&path(name), &[words]);
    }
    refused(&path("none.json"), &["No such file"]);
    fs::create_dir(path("folder.json")).expect("a folder");
    refused(&path("folder.json"), &["not a plain file"]);
}
