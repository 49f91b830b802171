//! What a run says beside its answers: loss by position on documents, the size of the state, how far back
//! predictions reach, and the states that sequences start from.

use std::path::Path;

use longhaul_tests::host::{Row, longhaul, rows};

/// A run of these architectures on the generated documents that takes a moment.
fn run(out: &Path, architectures: &[&str], more: &[&str]) -> Vec<Row> {
    let out_text = out.to_str().expect("UTF-8");
    let mut arguments = vec![
        "run", "smoke", "--task", "books", "--out", out_text, "--quiet",
    ];
    let settings =
        "--train-length 32 --lengths 32,128 --steps 4 --batch 3 --samples 3 --d-model 8 --jobs 1";
    arguments.extend(settings.split(' '));
    arguments.extend(more);
    for architecture in architectures {
        arguments.extend(["--arch", architecture]);
    }
    longhaul(arguments).expect(0);
    rows(&out.join("results.csv"))
}

fn number(row: &Row, column: &str) -> f64 {
    row[column]
        .parse()
        .unwrap_or_else(|_| panic!("`{column}` in {row:?}"))
}

fn labelled<'a>(rows: &'a [Row], architecture: &str, length: &str, label: &str) -> &'a Row {
    let found = rows.iter().find(|row| {
        row["architecture"] == architecture && row["eval_length"] == length && row["label"] == label
    });
    found.unwrap_or_else(|| panic!("no `{label}` of {architecture} at {length}"))
}

#[test]
fn states_predictions_and_starts_are_recorded_beside_the_loss() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("run");
    let more = [
        "--state-norms",
        "--remembrance",
        "2",
        "--initial-states",
        "noise:0.5,fitted,passed",
    ];
    let all = run(&out, &["lstm", "transformer"], &more);
    let whole = labelled(&all, "lstm", "128", "");
    assert_eq!(
        (whole["metric"].as_str(), whole["chance"].as_str()),
        ("bits_per_byte", "")
    );
    assert!(
        whole["task_options"].contains("texts=generated"),
        "{}",
        whole["task_options"]
    );
    assert!(number(whole, "value") > 1.0, "untrained");
    // Four steps know next to nothing of what was before, but another start gives other numbers.
    for start in ["noise:0.5", "fitted", "passed"] {
        let other = labelled(&all, "lstm", "128", &format!("initial={start}"));
        assert_ne!(other["value"], whole["value"], "{start}");
        assert!((number(other, "value") - number(whole, "value")).abs() < 1.0);
    }
    assert!(
        all.iter()
            .any(|row| row["label"].starts_with("initial=passed,position="))
    );
    let of_caches = all
        .iter()
        .filter(|row| row["architecture"] == "transformer");
    assert!(of_caches.clone().count() > 0);
    assert!(
        of_caches
            .into_iter()
            .all(|row| !row["label"].starts_with("initial="))
    );
    let probes = rows(&out.join("probes.csv"));
    for architecture in ["lstm", "transformer"] {
        let own: Vec<&Row> = probes
            .iter()
            .filter(|row| row["architecture"] == architecture)
            .collect();
        let norms = own.iter().filter(|row| row["probe"] == "state_norm");
        let places: Vec<(&str, &str)> = norms
            .clone()
            .map(|row| (row["layer"].as_str(), row["position"].as_str()))
            .collect();
        for place in [("0", "32"), ("0", "128")] {
            assert!(places.contains(&place), "{architecture}: {places:?}");
        }
        assert!(
            norms
                .into_iter()
                .all(|row| number(row, "value") > 0.0 && row["samples"] == "3")
        );
        let far = |length: &str, skipped: &str| -> f64 {
            let of = |row: &&&Row| {
                row["probe"] == "effective_remembrance"
                    && row["eval_length"] == length
                    && row["skipped"] == skipped
            };
            number(own.iter().find(of).expect("a row"), "value")
        };
        assert!(
            far("128", "2") <= far("128", "126"),
            "{architecture}: less is lost with less"
        );
        assert!(far("128", "126") > 0.0 && far("128", "126") <= 1.0);
    }
    let units: Vec<&str> = all.iter().map(|row| row["unit"].as_str()).collect();
    assert!(
        probes
            .iter()
            .all(|row| units.contains(&row["unit"].as_str()))
    );
}

/// The suite `niah` holds a hybrid against its window alone: both have it, and what lies before its reach changes no
/// prediction of the control.
#[test]
fn a_window_alone_is_the_control_of_a_hybrid() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("run");
    let out_text = out.to_str().expect("UTF-8");
    let settings = "run niah --task needle:haystack=varied,value=number --lengths 512 --steps 2 --batch 2 \
                    --samples 11 --seeds 1 --lr 1e-3 --d-model 16 --state-norms --remembrance 2 --quiet";
    longhaul(settings.split_whitespace().chain(["--out", out_text])).expect(0);
    let all = rows(&out.join("results.csv"));
    let cells = all.iter().filter(|row| row["label"].is_empty());
    assert_eq!(cells.filter(|row| row["status"] == "ok").count(), 5);
    let probes = rows(&out.join("probes.csv"));
    let of = |architecture: &'static str| {
        let own = move |row: &&Row| {
            row["architecture"] == architecture && row["options"].contains("window=128")
        };
        probes.iter().filter(own)
    };
    for state in ["diagonal_scan", "attention"] {
        assert!(of("griffin").any(|row| row["state"] == state), "{state}");
    }
    // Two layers of 128 positions, each with its own among them, see 255.
    let without = |architecture: &'static str, skipped: &str| {
        let mut own = of(architecture);
        let row = own.find(|row| row["skipped"] == skipped);
        number(
            row.unwrap_or_else(|| panic!("{architecture} without {skipped}")),
            "value",
        )
    };
    assert!(without("transformer", "384") > 1e-3);
    assert!(without("transformer", "256") < 1e-6);
    assert!(without("griffin", "256") > 1e-5);
}

/// The texts of a run stand in its record by path and hash; the path may change, the hash may not.
#[test]
fn a_run_on_texts_is_evaluated_where_its_texts_are_now() {
    let folder = tempfile::tempdir().expect("a folder");
    let (out, there) = (folder.path().join("run"), folder.path().join("there"));
    std::fs::create_dir(&there).expect("a new folder");
    for document in 0..12 {
        let text = format!("Document {document} says this. ").repeat(40 + document);
        std::fs::write(there.join(format!("{document}.txt")), text).expect("writable");
    }
    let text = |path: &Path| path.to_str().expect("UTF-8").to_owned();
    run(&out, &["lstm"], &["--texts", &text(&there)]);
    let here = folder.path().join("here");
    std::fs::rename(&there, &here).expect("a folder moves");
    let eval = |more: &[&str]| {
        let out = text(&out);
        let arguments = ["eval", &out, "--samples", "2", "--quiet"];
        longhaul(arguments.iter().chain(more))
    };
    eval(&["--lengths", "256"]).expect(2).complains(&["there"]);
    eval(&["--texts", &text(&here), "--lengths", "256"]).expect(0);
    let all = rows(&out.join("results.csv"));
    let long = labelled(&all, "lstm", "256", "");
    assert_eq!(
        (long["status"].as_str(), long["samples"].as_str()),
        ("ok", "2")
    );
    assert_eq!(long["unit"], labelled(&all, "lstm", "128", "")["unit"]);
    // Another tokenizer, or another text, is another measurement.
    std::fs::write(here.join("3.txt"), "something else").expect("writable");
    let ran = eval(&["--texts", &text(&here), "--lengths", "512"]);
    ran.expect(2).complains(&["has changed", "texts"]);
}

#[test]
fn training_from_a_state_is_another_training_and_refused_where_there_is_none() {
    let folder = tempfile::tempdir().expect("a folder");
    let architectures = [
        "lstm",
        "lstm:initial_state=passed",
        "lstm:initial_state=noise:1",
    ];
    let all = run(&folder.path().join("run"), &architectures, &[]);
    let again = run(&folder.path().join("again"), &architectures, &[]);
    let values = |rows: &[Row]| -> Vec<(String, String)> {
        let cells = rows
            .iter()
            .filter(|row| row["label"].is_empty() && row["eval_length"] == "32");
        cells
            .map(|row| (row["options"].clone(), row["value"].clone()))
            .collect()
    };
    let found = values(&all);
    assert_eq!(found, values(&again), "the same bytes");
    let options: Vec<&str> = found.iter().map(|(options, _)| options.as_str()).collect();
    for part in ["initial_state=noise:1", "initial_state=passed"] {
        assert!(
            options.iter().any(|options| options.contains(part)),
            "{options:?}"
        );
    }
    assert!(
        found[0].1 != found[1].1 && found[1].1 != found[2].1,
        "{found:?}"
    );
    let out = folder.path().join("none");
    let out = out.to_str().expect("UTF-8");
    let settings = "run smoke --task books --train-length 32 --lengths 32 --steps 2 --samples 2 --quiet --arch transformer:initial_state=passed";
    let arguments = settings.split(' ').chain(["--out", out]);
    longhaul(arguments).expect(1);
    let rows = rows(&Path::new(out).join("results.csv"));
    assert!(
        rows[0]["reason"].contains("leave `initial_state` out"),
        "{:?}",
        rows[0]["reason"]
    );
    let refused = "run smoke --arch lstm:initial_state=old --dry-run";
    longhaul(refused.split(' '))
        .expect(2)
        .complains(&["initial_state", "noise:DEVIATION"]);
}
