//! Paths of any bytes, and which library is meant where there are several.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use longhaul_tests::build::{self, faulty, workspace};
use longhaul_tests::host::{command, finish, longhaul, longhaul_with, words};

const BAD: &[u8] = b"b\xff";

/// `b` and a byte that is not UTF-8, inside a folder.
fn bad_name(folder: &Path) -> PathBuf {
    folder.join(OsStr::from_bytes(BAD))
}

const SMALL: &str = "run --arch lstm --task parity --train-length 8 --lengths 8 --steps 2 --batch 2 \
     --d-model 8 --layers 1 --samples 4 --jobs 1 --threads 1";

/// A built plugin that lies beside the program.
fn beside(name: &str) -> PathBuf {
    build::longhaul().with_file_name(name)
}

/// A plugin with other bytes: what follows a library's last section is never read.
fn rebuilt(from: &Path, to: &Path) {
    let mut bytes = fs::read(from).expect("a plugin can be read");
    bytes.extend(to.as_os_str().as_bytes());
    fs::write(to, bytes).expect("writable");
}

#[test]
fn folders_and_files_may_have_any_bytes() {
    let scratch = tempfile::tempdir().expect("a temporary folder");
    let odd = bad_name(scratch.path());
    let out = odd.as_os_str();
    longhaul_with(SMALL, &["--out".as_ref(), out]).expect(0);
    let manifest = fs::read_to_string(odd.join("run.toml")).expect("readable");
    assert!(
        manifest.contains(r"b\xff'"),
        "a shell reads it:\n{manifest}"
    );
    longhaul_with(SMALL, &["--out".as_ref(), out, "--resume".as_ref()]).expect(0);
    longhaul_with("eval --lengths 16", &[out]).expect(0);

    let checkpoint = workspace().join("tests/checkpoints/mamba");
    let copy = scratch.path().join(OsStr::from_bytes(b"c\xfe"));
    fs::create_dir(&copy).expect("writable");
    for file in fs::read_dir(checkpoint).expect("readable").flatten() {
        fs::copy(file.path(), copy.join(file.file_name())).expect("writable");
    }
    longhaul_with("checkpoint verify", &[copy.as_os_str()]).expect(0);
    let evaluated = scratch.path().join("evaluated");
    let more = [copy.as_os_str(), "--out".as_ref(), evaluated.as_os_str()];
    let eval = "checkpoint eval --task induction --lengths 64 --samples 4 --jobs 1";
    longhaul_with(eval, &more).expect(0);
    let resumed = format!("{eval} --resume");
    longhaul_with(&resumed, &more).expect(0);
}

#[test]
fn plugins_may_lie_anywhere() {
    let scratch = tempfile::tempdir().expect("a temporary folder");
    let odd = bad_name(scratch.path());
    fs::create_dir(&odd).expect("writable");
    let plugin = odd.join(OsStr::from_bytes(b"p\xff.so"));
    rebuilt(&beside("liblonghaul_lstm.so"), &plugin);
    let file = ["--plugin".as_ref(), plugin.as_os_str()];
    longhaul_with("list lstm --json", &file).expect(0);
    longhaul_with("check lstm --only options", &file).expect(0);
    longhaul_with("bench --arch lstm --length 8 --seconds 0", &file).expect(0);
    longhaul_with("list lstm", &["--plugin-dir".as_ref(), odd.as_os_str()]).expect(0);
    let ran = finish(
        command(["list", "lstm"])
            .env("LONGHAUL_PLUGIN_PATH", &odd)
            .spawn()
            .expect("starts"),
    );
    ran.expect(0);
    // The program's own folder.
    let program = odd.join("longhaul");
    fs::copy(build::longhaul(), &program).expect("writable");
    fs::copy(
        beside("liblonghaul_lstm.so"),
        odd.join("liblonghaul_lstm.so"),
    )
    .expect("writable");
    let mut own = std::process::Command::new(&program);
    own.args(words::<String>(SMALL))
        .arg("--out")
        .arg(odd.join("run"))
        .arg("-q");
    let ended = own.output().expect("starts");
    assert!(
        ended.status.success(),
        "{}",
        String::from_utf8_lossy(&ended.stderr)
    );
}

#[test]
fn a_name_or_number_that_is_not_text_is_shown() {
    let bad = OsStr::from_bytes(BAD);
    for text in [
        "run",
        "run --arch",
        "run --task",
        "run --lengths",
        "bench --length",
        "check",
        "list",
        "show",
        "new",
    ] {
        longhaul_with(text, &[bad])
            .expect(2)
            .complains(&["`b\u{fffd}`", "UTF-8"]);
    }
}

#[test]
fn a_named_file_comes_first_and_must_be_a_plugin() {
    let scratch = tempfile::tempdir().expect("a temporary folder");
    let own = beside("liblonghaul_lstm.so");
    let file_of = |arch: &str, more: &[&OsStr]| {
        let mut all = vec!["list", arch, "--json"];
        all.retain(|word| !word.is_empty());
        let mut all: Vec<&OsStr> = all.into_iter().map(OsStr::new).collect();
        all.extend(more);
        let ran = longhaul(all).expect(0);
        let listed: serde_json::Value = serde_json::from_str(&ran.stdout).expect("JSON");
        listed.as_array().expect("plugins").len()
    };
    // A copy and a hard link are the same plugin.
    let copy = scratch.path().join("copy.so");
    fs::copy(&own, &copy).expect("writable");
    let plugin = |path: &Path| ["--plugin".into(), path.to_owned().into_os_string()];
    let named = plugin(&copy);
    let named: Vec<&OsStr> = named.iter().map(OsString::as_os_str).collect();
    assert_eq!(file_of("lstm", &named), 1);
    // A build of one's own is what `--arch` means.
    let mine = scratch.path().join("mine.so");
    rebuilt(&own, &mine);
    for arch in ["lstm", "longhaul-lstm/lstm", "mine.so/lstm"] {
        let text = format!("check {arch} --only options");
        let ran = longhaul_with(&text, &["--plugin".as_ref(), mine.as_os_str()]).expect(0);
        assert!(ran.stdout.contains("mine.so"), "{}", ran.stdout);
    }
    // So it is for checkpoints.
    let mamba = scratch.path().join("mamba.so");
    rebuilt(&beside("liblonghaul_mamba.so"), &mamba);
    let checkpoint = workspace().join("tests/checkpoints/mamba");
    let given = [
        checkpoint.as_os_str(),
        "--plugin".as_ref(),
        mamba.as_os_str(),
    ];
    longhaul_with("checkpoint inspect", &given).expect(0);
    // Two in one place: the advice is understood.
    let other = scratch.path().join("other.so");
    rebuilt(&own, &other);
    let both = [
        "--plugin".as_ref(),
        mine.as_os_str(),
        "--plugin".as_ref(),
        other.as_os_str(),
    ];
    let ran = longhaul_with("check lstm --only options", &both).expect(2);
    let advice = ran
        .stderr
        .split("write `")
        .nth(1)
        .and_then(|rest| rest.split('`').next());
    let advice = advice.unwrap_or_else(|| panic!("no advice in {}", ran.stderr));
    let text = format!("check {advice} --only options");
    longhaul_with(&text, &both).expect(0).prints(&["mine.so"]);
    // Neither a program nor a text is a plugin.
    let text = scratch.path().join("text.so");
    fs::write(&text, "no library").expect("writable");
    for broken in [Path::new("/bin/ls"), &text, scratch.path()] {
        let out = scratch.path().join("run");
        let more = [
            "--plugin".as_ref(),
            broken.as_os_str(),
            "--out".as_ref(),
            out.as_os_str(),
        ];
        let name = broken.to_string_lossy();
        longhaul_with(SMALL, &more).expect(2).complains(&[&name]);
        assert!(!out.exists());
    }
}

#[test]
fn a_folder_of_plugins_has_versions_too() {
    let scratch = tempfile::tempdir().expect("a temporary folder");
    let folder = ["--plugin-dir".as_ref(), scratch.path().as_os_str()];
    longhaul_with("list", &folder)
        .expect(0)
        .complains(&["has no library", ".so"]);
    fs::copy(faulty(), scratch.path().join("libfaulty.so.1.2")).expect("writable");
    for link in ["libfaulty.so.1", "libfaulty.so"] {
        std::os::unix::fs::symlink("libfaulty.so.1.2", scratch.path().join(link))
            .expect("writable");
    }
    longhaul_with("bench --arch faulty --length 8 --seconds 0", &folder).expect(0);
}
