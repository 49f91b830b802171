//! `tests/gpu/pack.sh` and `tests/gpu/run.sh` as far as they go without a card: the packed folder on the
//! simulated driver, at the smallest sizes. What is timed there means nothing; that every stage runs, leaves its
//! table and tells a failure does.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use longhaul_tests::build::{cargo, longhaul, profile_folder, scratch, workspace};
use longhaul_tests::host::{Ran, finish, rows};

/// Names under which NVIDIA's libraries are looked for.
const LIBRARIES: [&str; 6] = [
    "libcuda.so",
    "libcuda.so.1",
    "libnvrtc.so",
    "libnvrtc.so.13",
    "libcublasLt.so",
    "libcublasLt.so.13",
];

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

/// A folder in which the loader finds the simulated libraries.
fn simulated() -> PathBuf {
    packed();
    let folder = scratch().join("gpu-simulated");
    std::fs::create_dir_all(&folder).expect("the target folder can be written");
    for name in LIBRARIES {
        let link = folder.join(name);
        // Another test of this process may be making the same link.
        let _ = symlink(profile_folder().join("libsimulated_cuda.so"), &link);
        assert!(link.exists(), "{} leads nowhere", link.display());
    }
    folder
}

/// `run.sh` of the packed folder at the smallest sizes.
fn on_the_simulated_card(out: &Path, stages: &str) -> Command {
    let libraries = simulated();
    let mut command = script(&packed().join("run.sh"));
    command
        .args(["--tiny", "--only", stages, "--out"])
        .arg(out)
        .env("LD_LIBRARY_PATH", &libraries)
        .env("LONGHAUL_KERNEL_CACHE", libraries.join("kernels"));
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
    command.env("SIMULATED_CUDA_FAULT", "illegal-address@ssd:1");
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

#[test]
fn the_summary_holds_what_was_reached_against_what_was_asked() {
    let speed = "card,arch,d_model,products,peer,form,ratio,status\n\
                 X,lstm,64,tf32,\"PyTorch, cuDNN\",eager,5.5,ok\n\
                 X,mamba,64,tf32,plain PyTorch,eager,4.5,ok\n\
                 X,mamba,64,tf32,mamba_ssm,eager,1.5,ok\n\
                 X,lstm,64,tf32,\"PyTorch, cuDNN\",compile,2.5,ok\n\
                 cpu,mamba,64,tf32,plain PyTorch,compile,0.5,ok\n\
                 Simulated card 0,mamba,64,tf32,plain PyTorch,compile,0.5,ok\n\
                 X,griffin,64,tf32,plain PyTorch,compile,,failed\n";
    let reads = |far: &str| {
        format!(
            "card,length,parameters,state_bytes,device_memory_bytes,status\n\
             X,65536,370000000,100,1000,ok\nX,1048576,370000000,100,{far},ok\n"
        )
    };
    let (steady, growing) = (reads("1040"), reads("1060"));
    let text = summary(&[("throughput.csv", speed), ("long.csv", &steady)]);
    for part in [
        "measured on: X\n",
        "conformance: not measured",
        "eager: asked 5x, reached 4.50x (mamba, D 64, tf32, plain PyTorch) to 5.50x",
        "1 of 2 rows: NOT met",
        "CUDA graphs: asked 2x, reached 2.50x",
        "1 of 1 rows: met",
        "attention beside PyTorch's fused, bf16: asked 0.6x, not measured",
        "1000 and 1040 bytes at 65536 and 1048576 tokens: met",
    ] {
        assert!(text.contains(part), "`{part}` is missing in:\n{text}");
    }
    let text = summary(&[("long.csv", &growing)]);
    assert!(text.contains("tokens: NOT met"), "{text}");
}
