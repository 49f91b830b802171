//! `longhaul ruler`: files in RULER's form, scored by line and never by `index`; lines that are missing, doubled
//! or in another order are one error that names file and line.

use std::path::Path;

use longhaul_tests::host::longhaul;
use serde_json::{Value, json};

/// Ten samples, and a prediction for each: right, in capitals, none, right, ..
fn files(folder: &Path) -> (String, String, Vec<String>) {
    let data = folder.join("niah_multivalue.jsonl").display().to_string();
    let generate = [
        "ruler",
        "generate",
        "--task",
        "niah_multivalue",
        "--length",
        "2048",
        "--samples",
        "10",
        "--out",
        &data,
    ];
    longhaul(generate).expect(0);
    longhaul(generate)
        .expect(2)
        .complains(&["niah_multivalue.jsonl exists", "--out"]);
    let text = std::fs::read_to_string(&data).expect("samples");
    let lines = text.lines().enumerate().map(|(number, line)| {
        let sample: Value = serde_json::from_str(line).expect("a JSON object");
        assert_eq!(sample["index"], number);
        let (input, prefix) = (sample["input"].as_str().unwrap(), sample["answer_prefix"].as_str().unwrap());
        let length = sample["length"].as_u64().unwrap() as usize;
        assert_eq!(length, input.len() + prefix.len() + 128, "in bytes");
        assert_eq!(sample["length_w_model_temp"], length);
        let position = sample["token_position_answer"].as_u64().unwrap() as usize;
        assert!(input[position..].starts_with(sample["outputs"][0].as_str().unwrap()));
        let outputs: Vec<&str> = sample["outputs"].as_array().unwrap().iter().map(|one| one.as_str().unwrap()).collect();
        let pred = match number % 3 {
            0 => Value::from(outputs.join(", ")),
            1 => Value::from(outputs[..2].join("\u{1}")),
            _ => Value::Null,
        };
        // The index is what RULER's main branch writes there: a place in the text.
        json!({"index": 77, "pred": pred, "input": format!("{input}{prefix}"), "outputs": outputs, "others": {},
            "truncation": if number == 4 { 12 } else { -1 }, "length": length})
        .to_string()
    });
    let lines = lines.collect();
    (
        data,
        folder.join("answers.jsonl").display().to_string(),
        lines,
    )
}

#[test]
fn predictions_are_scored_by_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let (data, answers, lines) = files(folder.path());
    let write = |lines: &[&String]| {
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        std::fs::write(&answers, text).expect("writable");
    };
    let all: Vec<&String> = lines.iter().collect();
    let score = ["ruler", "score", "--data", &data, &answers];

    write(&all);
    let summary = folder.path().join("summary.csv").display().to_string();
    let mut with_summary = score.to_vec();
    with_summary.extend(["--summary", &summary]);
    // Four are right, three half, three empty.
    let said = longhaul(with_summary).expect(0).stdout;
    for part in [
        "string_match_all 55.00 %",
        "wilson",
        "10 samples, 3 nulls, 1 of truncated",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let table = std::fs::read_to_string(&summary).expect("a table");
    assert_eq!(
        table,
        "0,1\nTasks,niah_multivalue\nScore,55.0\nNulls,3/10\n"
    );

    write(&[&all[..4], &all[5..]].concat());
    longhaul(score).expect(2).complains(&[
        "answers.jsonl, line 5",
        "answers line 6",
        "a line is missing",
    ]);
    write(&all[..9]);
    longhaul(score)
        .expect(2)
        .complains(&["answers.jsonl, line 10", "the file ends"]);
    write(&[&all[..4], &all[3..]].concat());
    longhaul(score).expect(2).complains(&[
        "answers.jsonl, line 5",
        "answers line 4",
        "a line is doubled",
    ]);
    write(&[&all[..], &all[9..]].concat());
    longhaul(score)
        .expect(2)
        .complains(&["answers.jsonl, line 11", "a prediction too many"]);
    let mut turned = all.clone();
    turned.swap(1, 7);
    write(&turned);
    longhaul(score).expect(2).complains(&[
        "answers.jsonl, line 2",
        "answers line 8",
        "the order is another",
    ]);
    let bare = "{\"index\": 0, \"pred\": \"x\"}".to_owned();
    write(&[&bare]);
    longhaul(score)
        .expect(2)
        .complains(&["answers.jsonl, line 1", "nothing says which sample"]);
    let broken = "{\"pred\": ".to_owned();
    write(&[all[0], &broken]);
    longhaul(score)
        .expect(2)
        .complains(&["answers.jsonl, line 2", "EOF"]);
}

#[test]
fn what_cannot_be_made_leaves_no_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("samples.jsonl").display().to_string();
    for (task, length, said) in [
        ("niah_single_1", "300", "takes lengths"),
        ("cwe", "4096", "fixed_difficulty=true"),
        ("qa_1", "4096", "--qa FILE"),
        ("needle", "4096", "none of RULER's"),
        ("niah_single_1:depth=2", "4096", "random or a number 0..1"),
    ] {
        longhaul([
            "ruler", "generate", "--task", task, "--length", length, "--out", &out,
        ])
        .expect(2)
        .complains(&[said]);
    }
    assert_eq!(
        std::fs::read_dir(folder.path()).expect("a folder").count(),
        0
    );
    longhaul(["ruler", "score", "--data", &out, &out])
        .expect(2)
        .complains(&["--task"]);
}

#[test]
fn a_file_beside_the_samples_is_left_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (out, beside) = (path("samples.jsonl"), path("samples.jsonl.partial"));
    std::fs::write(&beside, "mine").expect("writable");
    let generate = |task| {
        let words = ["ruler", "generate", "--task", task, "--length", "4096"];
        longhaul(words.into_iter().chain(["--samples", "2", "--out", &out]))
    };
    generate("niah_single_1:depth=2").expect(2);
    generate("niah_single_1").expect(0);
    assert_eq!(std::fs::read_to_string(&beside).expect("kept"), "mine");
    assert_eq!(
        std::fs::read_dir(folder.path()).expect("a folder").count(),
        2
    );
}
