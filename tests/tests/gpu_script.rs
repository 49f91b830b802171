//! `tests/gpu/pack.sh` and `tests/gpu/run.sh` as far as they go without a card: the packed folder on the
//! simulated driver, at the smallest sizes. What is timed there means nothing; that every stage runs, leaves its
//! table and tells a failure does.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use longhaul_tests::build::{cargo, longhaul, profile_folder, scratch, workspace};
use longhaul_tests::card;
use longhaul_tests::host::{Ran, Row, finish, rows};

fn script(path: &Path) -> Command {
    let mut command = Command::new("bash");
    command
        .arg(path)
        .env_remove("LONGHAUL_PLUGIN_PATH")
        .env_remove("LONGHAUL_LOG")
        .env_remove("PYTHON")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn run(command: &mut Command) -> Ran {
    finish(command.spawn().expect("bash can be started"))
}

/// The folder that `pack.sh` makes of this profile's binaries, made once a process.
fn packed() -> &'static Path {
    static PACKED: OnceLock<PathBuf> = OnceLock::new();
    PACKED.get_or_init(|| {
        longhaul();
        let profile = profile_folder();
        let target = profile.with_file_name("");
        let target = target.to_string_lossy();
        let mut words = vec!["build", "--quiet", "--offline", "--target-dir", &target];
        words.extend(["--workspace", "--example", "kernel_speed"]);
        if profile.ends_with("release") {
            words.push("--release");
        }
        cargo(&workspace(), &words);
        let folder = scratch().join("gpu-packed");
        let pack = workspace().join("tests/gpu/pack.sh");
        let mut command = script(&pack);
        command.arg(&folder).arg("--from").arg(&profile);
        run(&mut command)
            .expect(0)
            .prints(&["liblonghaul_rwkv.so", "MiB of at most 60"]);
        folder
    })
}

/// `run.sh` of the packed folder at the smallest sizes.
fn on_the_simulated_card(out: &Path, stages: &str) -> Command {
    let mut command = script(&packed().join("run.sh"));
    command.args(["--tiny", "--only", stages, "--out"]).arg(out);
    card::give(&mut command);
    command
}

#[test]
fn every_stage_runs_and_leaves_its_table() {
    let kept = tempfile::tempdir().expect("a folder");
    let out = kept.path().join("results");
    let stages = "devices,check,checkpoints,suite,kernels,long";
    run(&mut on_the_simulated_card(&out, stages))
        .expect(0)
        .prints(&["stages on Simulated card 0", "measured on: nothing"]);
    let checks = rows(&out.join("checks.csv"));
    assert!(checks.len() >= 2, "{checks:?}");
    for row in &checks {
        assert_eq!((&*row["card"], &*row["result"]), ("Simulated card 0", "ok"));
    }
    let results = rows(&out.join("suite/results.csv"));
    assert!(!results.is_empty());
    for row in &results {
        assert_eq!((&*row["device"], &*row["status"]), ("cuda:0", "ok"));
    }
    let reads = rows(&out.join("long.csv"));
    assert_eq!(reads.len(), 2);
    assert!(!reads[0]["state_bytes"].is_empty());
    assert_eq!(reads[0]["state_bytes"], reads[1]["state_bytes"]);
    let kernels = rows(&out.join("kernels.csv"));
    for operation in ["copy", "scan", "ssd", "attention"] {
        let timed = kernels
            .iter()
            .any(|row| row["operation"] == operation && !row["bytes_per_second"].is_empty());
        assert!(timed, "{operation}: {kernels:?}");
    }
    // What multiplies on tensor cores was held against float32, and is not the same.
    for operation in ["ssd", "attention"] {
        for row in kernels.iter().filter(|row| row["operation"] == operation) {
            let number = |name: &str| row[name].parse::<f64>().expect("a number");
            let (error, accepted) = (number("error"), number("tolerance"));
            assert!(1e-6 < error && error <= accepted, "{row:?}");
        }
    }
    let text = std::fs::read_to_string(out.join("checkpoints.txt")).expect("a list");
    assert!(text.contains("mamba2-tied"), "{text}");
    let summary = std::fs::read_to_string(out.join("summary.txt")).expect("a summary");
    let lines = summary.lines().filter(|line| line.contains(" ok "));
    assert_eq!(lines.count(), stages.split(',').count(), "{summary}");
}

#[test]
fn a_stage_that_fails_is_told_and_the_next_runs() {
    let kept = tempfile::tempdir().expect("a folder");
    let out = kept.path().join("results");
    let mut command = on_the_simulated_card(&out, "long,suite");
    // Mamba-2's kernels are among those of the first stage only.
    command.env("SIMULATED_CUDA_FAULT", "illegal-address@head_states:1");
    let ran = run(&mut command).expect(1);
    let stages = |word: &str| {
        let lines = ran.stdout.lines().filter(|line| line.contains(word));
        lines
            .map(|line| {
                line.split_whitespace()
                    .next()
                    .unwrap_or_default()
                    .to_owned()
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(stages(" FAILED "), ["long"], "{}", ran.stdout);
    assert_eq!(stages(" ok "), ["suite"], "{}", ran.stdout);
    let reads = rows(&out.join("long.csv"));
    assert!(!reads.is_empty());
    for row in reads {
        assert_eq!(row["status"], "failed");
        assert!(
            row["reason"].contains("CUDA_ERROR_ILLEGAL_ADDRESS"),
            "{row:?}"
        );
    }
}

#[test]
fn a_second_call_does_what_the_first_left() {
    let kept = tempfile::tempdir().expect("a folder");
    let out = kept.path().join("results");
    run(&mut on_the_simulated_card(&out, "check,suite")).expect(0);
    let whole = std::fs::read_to_string(out.join("checks.csv")).expect("a table");
    let mut lines: Vec<&str> = whole.lines().collect();
    assert!(lines.len() >= 3, "{whole}");
    // As a call leaves it that was stopped within its last row.
    let last = lines.pop().expect("a row");
    let cut = format!("{}\n", lines.join("\n"));
    std::fs::write(out.join("checks.csv"), cut).expect("a table");
    run(&mut on_the_simulated_card(&out, "check,suite"))
        .expect(0)
        .prints(&[
            &format!("{} known from before", lines.len() - 1),
            "0 models trained",
        ]);
    let again = std::fs::read_to_string(out.join("checks.csv")).expect("a table");
    assert_eq!(again.lines().count(), whole.lines().count(), "{again}");
    let name = |line: &str| {
        line.split(',')
            .skip(6)
            .take(4)
            .collect::<Vec<_>>()
            .join(",")
    };
    assert_eq!(again.lines().last().map(name), Some(name(last)));
}

/// A stand-in for compute-sanitizer, which runs the program and finds something with one of its tools.
const SANITIZER: &str = r#"#!/usr/bin/env bash
faster=
while [ $# -gt 0 ]; do
  case $1 in
    --help) echo "  --kernel-name-exclude arg"; exit ;;
    --tool) tool=$2; shift 2 ;;
    --target-processes | --error-exitcode | --print-limit) shift 2 ;;
    --kernel-name-exclude) faster+=" $2"; shift 2 ;;
    *) break ;;
  esac
done
echo "$tool $LONGHAUL_PRODUCTS$faster $*" >> "$SEEN"
"$@" || exit
[ "$tool" != "$FINDS" ] || { echo "========= RACECHECK SUMMARY: 2 hazards displayed"; exit 97; }
echo "========= ERROR SUMMARY: 0 errors"
"#;

#[test]
fn the_sanitizers_rows_are_kept_and_only_failed_ones_are_made_again() {
    let kept = tempfile::tempdir().expect("a folder");
    let program = kept.path().join("compute-sanitizer");
    std::fs::write(&program, SANITIZER).expect("a script");
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("a script");
    let table = kept.path().join("sanitizer.csv");
    let call = |finds: &str| {
        let seen = kept.path().join("seen.txt");
        let _ = std::fs::remove_file(&seen);
        let mut command = Command::new("python3");
        command
            .arg(packed().join("sanitizer.py"))
            .arg("--program")
            .arg(&program)
            .arg("--csv")
            .arg(&table)
            .args([
                "--archs",
                "lstm,transformer",
                "--tools",
                "memcheck,racecheck",
            ])
            .env("LONGHAUL", packed().join("longhaul"))
            .env("SEEN", &seen)
            .env("FINDS", finds)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let ran = run(card::give(&mut command));
        (ran, std::fs::read_to_string(seen).unwrap_or_default())
    };
    let (ran, seen) = call("racecheck");
    ran.expect(1).prints(&["2 hazards displayed"]);
    assert!(seen.contains("memcheck bf16 kns=gemm "), "{seen}");
    assert!(seen.contains("--only gradients"), "{seen}");
    let results = |of: &str| {
        let rows = rows(&table);
        let wanted = rows.iter().filter(|row| row["tool"] == of);
        let texts = wanted.map(|row| {
            let (arch, products, result) = (&row["arch"], &row["products"], &row["result"]);
            format!("{arch} {products} {result}")
        });
        texts.collect::<Vec<_>>()
    };
    let words = |result: &str| {
        ["lstm float32", "transformer float32", "transformer bf16"]
            .map(|pair| format!("{pair} {result}"))
            .to_vec()
    };
    assert_eq!(results("memcheck"), words("ok"));
    assert_eq!(results("racecheck"), words("failed"));
    let log = kept.path().join("sanitizer-transformer-bf16-racecheck.txt");
    assert!(log.exists());
    let (ran, seen) = call("none");
    ran.expect(0);
    assert!(!seen.contains("memcheck"), "{seen}");
    assert_eq!(
        results("racecheck"),
        [words("failed"), words("ok")].concat()
    );
    assert!(!log.exists());
    let (ran, seen) = call("racecheck");
    ran.expect(0);
    assert_eq!(seen, "");
}

/// An interpreter with PyTorch: `PYTHON` or `python3`.
fn with_torch() -> Option<String> {
    let given = std::env::var("PYTHON").ok().into_iter();
    given.chain(["python3".to_owned()]).find(|python| {
        let mut command = Command::new(python);
        let output = command.args(["-c", "import torch"]).output();
        output.is_ok_and(|output| output.status.success())
    })
}

#[test]
fn throughput_holds_longhaul_beside_pytorch() {
    let Some(python) = with_torch() else {
        // Past the harness, which would keep it to itself.
        let words = "gpu_script: SKIPPED throughput: neither PYTHON nor python3 has PyTorch\n";
        let _ = std::io::stderr().write_all(words.as_bytes());
        return;
    };
    let kept = tempfile::tempdir().expect("a folder");
    let out = kept.path().join("results");
    let call = || {
        let mut command = script(&packed().join("run.sh"));
        command
            .args(["--tiny", "--device", "cpu", "--only", "throughput", "--out"])
            .arg(&out);
        card::give(&mut command).env("PYTHON", &python);
        run(&mut command).expect(0);
        rows(&out.join("throughput.csv"))
    };
    let first = call();
    let ours = |row: &&Row| row["peer"].contains("PyTorch");
    let plain: Vec<_> = first.iter().filter(ours).collect();
    assert_eq!(plain.len(), 2, "{first:?}");
    for row in plain {
        assert_eq!((&*row["card"], &*row["status"]), ("cpu", "ok"), "{row:?}");
        assert_eq!(row["parameters"], row["peer_parameters"]);
        let difference: f64 = row["loss_difference"].parse().expect("a number");
        assert!(difference < 1e-5, "{row:?}");
    }
    let second = call();
    assert_eq!(second.iter().filter(ours).count(), 2, "{second:?}");
}

#[test]
fn a_wrong_call_is_told_and_a_dry_run_prints_every_stage() {
    let path = packed().join("run.sh");
    run(script(&path).arg("--fast"))
        .expect(2)
        .complains(&["--fast is unknown", "usage"]);
    run(script(&path).args(["--only", "check,everything"]))
        .expect(2)
        .complains(&["no stage everything"]);
    run(script(&path).args(["--build", "/nowhere"]))
        .expect(2)
        .complains(&["no folder"]);
    run(script(&path).arg("--dry-run")).expect(0).prints(&[
        "longhaul devices",
        "checks.py --device cuda:0",
        "checkpoint verify",
        "run quick --device cuda:0",
        "throughput.py --device cuda:0",
        "kernels.py --device cuda:0",
        "long.py --device cuda:0",
    ]);
}

#[test]
fn the_python_scripts_compile() {
    let folder = workspace().join("tests/gpu");
    let entries = std::fs::read_dir(&folder).expect("the scripts' folder");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let sources: Vec<PathBuf> = paths
        .filter(|path| path.extension().is_some_and(|extension| extension == "py"))
        .collect();
    assert!(sources.len() >= 8, "{sources:?}");
    let compile = "import sys\nfor path in sys.argv[1:]: compile(open(path).read(), path, 'exec')";
    let mut command = Command::new("python3");
    command.args(["-c", compile]).args(&sources);
    let output = command.output().expect("python3 can be started");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}

/// What `summary.py` says of tables with these lines.
fn summary(tables: &[(&str, &str)]) -> String {
    let kept = tempfile::tempdir().expect("a folder");
    for (name, text) in tables {
        std::fs::write(kept.path().join(name), text).expect("a table");
    }
    let mut command = Command::new("python3");
    command
        .arg(workspace().join("tests/gpu/summary.py"))
        .arg(kept.path());
    let output = command.output().expect("python3 can be started");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A table with these columns, and rows of card X.
fn table(columns: &str, rows: impl IntoIterator<Item = String>) -> String {
    let rows: Vec<String> = rows.into_iter().map(|row| format!("X,{row}\n")).collect();
    format!("card,{columns}\n{}", rows.concat())
}

const SPEED: &str = "arch,d_model,products,peer,form,ratio,status";

/// A row for each small model that is asked, with this ratio.
fn small_models(form: &str, ratio: &str) -> Vec<String> {
    let mut rows = Vec::new();
    for arch in ["transformer", "mamba2", "mamba", "lstm", "rwkv4", "griffin"] {
        let peer = match arch {
            "lstm" => "\"PyTorch, cuDNN\"",
            _ => "plain PyTorch",
        };
        for d_model in [64, 128, 256] {
            for products in ["tf32", "float32"] {
                rows.push(format!(
                    "{arch},{d_model},{products},{peer},{form},{ratio},ok"
                ));
            }
        }
    }
    rows
}

fn says(tables: &[(&str, &str)], parts: &[&str]) {
    let text = summary(tables);
    for part in parts {
        assert!(text.contains(part), "`{part}` is missing in:\n{text}");
    }
}

#[test]
fn the_summary_says_met_only_of_everything_asked() {
    let mut rows = small_models("eager", "5.5");
    let whole = table(SPEED, rows.clone());
    says(
        &[("throughput.csv", &whole)],
        &[
            "measured on: X\n",
            "36 of 36 rows: met",
            "conformance: not measured",
            "CUDA graphs: asked 2x, not measured",
        ],
    );
    // Rows of a CPU, of the simulated driver and of a library are others.
    let others = format!(
        "{whole}cpu,mamba,64,tf32,plain PyTorch,eager,0.5,ok\nSimulated card 0,mamba,64,tf32,plain PyTorch,eager,0.5,ok\n\
         X,mamba,64,tf32,mamba_ssm,eager,1.5,ok\n"
    );
    says(&[("throughput.csv", &others)], &["36 of 36 rows: met"]);
    // The last of two rows counts.
    rows.push("mamba,64,tf32,plain PyTorch,eager,4.5,ok".to_owned());
    let below = table(SPEED, rows.clone());
    says(
        &[("throughput.csv", &below)],
        &[
            "asked 5x, reached 4.50x (mamba, D 64, tf32, plain PyTorch) to 5.50x",
            "35 of 36 rows: NOT met",
        ],
    );
    rows.push("mamba,64,tf32,plain PyTorch,eager,,failed".to_owned());
    rows.remove(0);
    let lost = table(SPEED, rows);
    says(
        &[("throughput.csv", &lost)],
        &["34 of 36 rows, 1 failed, 1 missing: incomplete"],
    );
}

#[test]
fn the_summary_counts_shapes_that_failed_or_differ() {
    let columns = "operation,pass,length,head_dim,peer,ratio,status";
    let mut rows = Vec::new();
    for pass in ["forward", "backward"] {
        for length in [2048, 8192, 32768, 65536] {
            rows.push(format!("scan,{pass},{length},,mamba_ssm,1.1,ok"));
        }
    }
    let whole = table(columns, rows.clone());
    says(
        &[("kernels.csv", &whole)],
        &[
            "scan beside mamba_ssm: asked 0.9x, reached 1.10x",
            "8 of 8 rows: met",
            "scan beside torch: asked 5x, not measured\n",
        ],
    );
    // A failed shape has neither pass nor peer, one that is different no peer; both had good rows before.
    rows.push("scan,,8192,,,,failed".to_owned());
    rows.push("scan,forward,2048,,,,different".to_owned());
    let lost = table(columns, rows);
    says(
        &[("kernels.csv", &lost)],
        &[
            "5 of 8 rows, 3 failed, 0 missing: incomplete",
            // Which is asked of PyTorch at two lengths.
            "scan beside torch: asked 5x, not measured (3 of 4 rows failed)",
        ],
    );
}

#[test]
fn the_summary_counts_the_last_result_of_a_check() {
    let rows = [
        "lstm,lstm,rows,failed",
        "rwkv,,,failed",
        "lstm,lstm,rows,ok",
        "rwkv,rwkv4,rows,ok",
        "griffin,,,failed",
    ];
    let checks = table("library,architecture,check,result", rows.map(str::to_owned));
    let rows = ["lstm,float32,memcheck,failed", "lstm,float32,memcheck,ok"];
    let sanitizer = table("arch,products,tool,result", rows.map(str::to_owned));
    says(
        &[("checks.csv", &checks), ("sanitizer.csv", &sanitizer)],
        &[
            "conformance: 2 ok, 1 failed, 0 skipped",
            "sanitizer: 1 ok, 0 failed",
        ],
    );
}

#[test]
fn the_summary_compares_reads_of_one_model_at_both_lengths() {
    let columns = "length,parameters,state_bytes,device_memory_bytes,status";
    let says_of = |rows: &[&str], part: &str| {
        let reads = table(columns, rows.iter().map(|row| (*row).to_owned()));
        says(&[("long.csv", &reads)], &[part]);
    };
    let short = "65536,370000000,100,1000,ok";
    says_of(
        &[short, "1048576,370000000,100,1040,ok"],
        "1000 and 1040 bytes at 65536 and 1048576 tokens: met",
    );
    says_of(&[short, "1048576,370000000,100,1060,ok"], "tokens: NOT met");
    says_of(&[short, "1048576,380000000,100,1040,ok"], "tokens: NOT met");
    says_of(
        &[
            "262144,370000000,100,1000,ok",
            "1048576,370000000,100,1040,ok",
        ],
        "not measured at both 65536 and 1048576 tokens (measured: 262144, 1048576)",
    );
    says_of(
        &[
            short,
            "1048576,370000000,100,1040,ok",
            "1048576,370000000,,,failed",
        ],
        "(measured: 65536, 1 failed)",
    );
}
