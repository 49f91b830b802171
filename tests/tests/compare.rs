//! `longhaul compare`: two models of a run on their examples, what it refuses, and a run without outcomes.

use std::fs;
use std::path::Path;

use longhaul_tests::build::workspace;
use longhaul_tests::host::{Folder, assert_reads_well, longhaul};

#[test]
fn two_models_of_a_run_are_compared_on_their_examples() {
    let folder = Folder::default();
    longhaul(folder.run(&["", "decay=0.5"], "16,32", &["--seeds", "2"])).expect(0);
    let out = folder.out();
    let out = out.to_str().expect("a path in text");
    let (one, other) = ("faulty", "faulty:decay=0.5");
    let ran = longhaul(["compare", out, one, other]).expect(0);
    assert_reads_well(&ran);
    let ran = ran.prints(&[
        "parity",
        "2 seeds of 20 examples",
        "A - B",
        "Holm",
        "McNemar's exact test",
    ]);
    // The same bytes again, and all numbers as CSV.
    let again = longhaul(["compare", out, one, other]).expect(0);
    assert_eq!(again.stdout, ran.stdout);
    let csv = longhaul(["compare", out, one, other, "--csv"]).expect(0);
    assert_eq!(csv.stdout.lines().count(), 3, "{}", csv.stdout);
    assert!(csv.stdout.contains(",paired,") && csv.stdout.contains(",mcnemar,"));
    // With itself there is no difference.
    let same = longhaul(["compare", out, one, "--with", out]).expect(0);
    same.prints(&["A - B", "1.000"]);
    longhaul(["compare", out, one])
        .expect(2)
        .complains(&["--with"]);
    longhaul(["compare", out, one, "lstm"])
        .expect(2)
        .complains(&["no model `lstm`", other]);
    longhaul(["compare", "/nowhere", one, other])
        .expect(2)
        .complains(&["/nowhere"]);
    // Outcomes that were changed are refused where they stand.
    let unit = folder.results()[0]["unit"].clone();
    let file = folder.file(&format!("outcomes/{unit}.csv"));
    let text = fs::read_to_string(&file).expect("outcomes");
    fs::write(&file, text.replacen(",20,", ",19,", 1)).expect("written");
    let refused = longhaul(["compare", out, one, other]).expect(2);
    refused.complains(&["line 2", "of 19 examples"]);
}

#[test]
fn a_kept_run_is_compared_on_its_examples_and_without_them_by_its_means() {
    let quick = workspace().join("results/reference/quick");
    let compared = |run: &Path| {
        let run = run.to_str().expect("a path in text");
        let ran = longhaul(["compare", run, "mamba2", "transformer"]).expect(0);
        assert_reads_well(&ran);
        ran
    };
    let ran = compared(&quick);
    ran.prints(&["needle", "A mamba2, B transformer", "* +23.8", "2e-10"]);
    let bare = tempfile::tempdir().expect("a temporary folder");
    for file in ["results.csv", "run.toml"] {
        fs::copy(quick.join(file), bare.path().join(file)).expect("copied");
    }
    let ran = compared(bare.path());
    ran.prints(&["needle", "A mamba2, B transformer", "was not kept", "+23.8"]);
}
