//! What comes from outside: paths of any bytes, things named twice or by a wrong name, numbers that cannot
//! work, text that would steer a terminal. Each works or is refused in a sentence; nothing panics.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use longhaul_tests::build::{self, faulty, workspace};
use longhaul_tests::host::{Folder, Ran, command, finish, longhaul};

const BAD: &[u8] = b"b\xff";

/// `b` and a byte that is not UTF-8, inside a folder.
fn bad_name(folder: &Path) -> PathBuf {
    folder.join(OsStr::from_bytes(BAD))
}

fn words(text: &str) -> Vec<OsString> {
    text.split_whitespace().map(OsString::from).collect()
}

/// Runs the words of a text and then these.
fn longhaul_with(text: &str, more: &[&OsStr]) -> Ran {
    let mut all = words(text);
    all.extend(more.iter().map(|&word| word.to_owned()));
    longhaul(all)
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
    own.args(words(SMALL))
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
fn variables_are_refused_by_name() {
    for (name, value) in [
        ("LONGHAUL_SIMD", OsStr::new("bogus")),
        ("LONGHAUL_SIMD", OsStr::from_bytes(BAD)),
        ("LONGHAUL_PRODUCTS", OsStr::new("fp8")),
        ("LONGHAUL_POISON", OsStr::new("no")),
        ("LONGHAUL_LOG", OsStr::new("a=b=c")),
    ] {
        let ran = finish(command(["tasks"]).env(name, value).spawn().expect("starts"));
        ran.expect(2).complains(&[name, &value.to_string_lossy()]);
    }
    let ran = finish(
        command(["tasks"])
            .env("LONGHAUL_SIMD", "v3")
            .spawn()
            .expect("starts"),
    );
    ran.expect(0);
}

#[test]
fn what_is_given_twice_and_what_library_is_unknown_is_said() {
    for (text, parts) in [
        (
            "bench --arch lstm:d_model=8,d_model=16",
            &["`d_model` twice"][..],
        ),
        ("bench --arch lstm:layers=1,layers=1", &["`layers` twice"]),
        (
            "bench --arch mamba2:state=8,expand=1,state=16",
            &["`state` twice"],
        ),
        ("show mqar:pairs=4,pairs=8", &["`pairs` twice"]),
        (
            "run --task parity --task mqar:vocab=64,vocab=65",
            &["`vocab` twice"],
        ),
        (
            "bench --arch nolib/lstm",
            &["no plugin `nolib`", "longhaul-lstm"],
        ),
        ("list nolib/lstm", &["no plugin `nolib`", "longhaul-lstm"]),
        (
            "bench --arch longhaul-lstn/lstm",
            &["did you mean `longhaul-lstm`?"],
        ),
        (
            "bench --arch longhaul-lstm/mamba",
            &["`longhaul-lstm` has no architecture `mamba`", "lstm"],
        ),
        (
            "bench --arch my-mixer",
            &["no architecture `my-mixer`", "--plugin"],
        ),
    ] {
        let ran = longhaul_with(text, &[]).expect(2).complains(parts);
        assert!(
            !ran.stderr.contains("did you mean `lstm`") && !ran.stderr.contains("mean `d_model`"),
            "{}",
            ran.stderr
        );
    }
    longhaul_with("list longhaul-lstm/lstm", &[])
        .expect(0)
        .prints(&["hidden", "longhaul-lstm"]);
}

#[test]
fn eval_takes_an_architecture_as_run_does() {
    let folder = Folder::default();
    longhaul(folder.run(&["", "decay=0.5"], "16", &[])).expect(0);
    let plugin = faulty();
    let eval = |arch: &str, length: &str| {
        let mut all = words(&format!("eval --lengths {length} --arch {arch}"));
        all.extend([
            folder.out().into(),
            "--plugin".into(),
            plugin.clone().into(),
        ]);
        longhaul(all)
    };
    let count = || folder.results().len();
    eval("longhaul-faulty/faulty", "20").expect(0);
    assert_eq!(count(), 4, "both models at a new length");
    // 0.9 is the default, which the run's options do not name; 5e-1 is how 0.5 may be written.
    eval("faulty:decay=0.9", "24").expect(0);
    assert_eq!(count(), 5);
    eval("longhaul-faulty/faulty:decay=5e-1,d_model=8", "24").expect(0);
    assert_eq!(count(), 6);
    eval("faulty:decay=0.7", "28")
        .expect(2)
        .complains(&["no architecture `faulty:decay=0.7`", "decay=0.5"]);
    eval("other/faulty", "28")
        .expect(2)
        .complains(&["no architecture `other/faulty`"]);
    eval("faulty:decya=0.9", "28")
        .expect(2)
        .complains(&["`decay`"]);
    eval("faulty:decay=0.9,decay=0.5", "28")
        .expect(2)
        .complains(&["twice"]);
    assert_eq!(count(), 6);
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

#[test]
fn numbers_that_cannot_work_are_refused_with_their_range() {
    let scratch = tempfile::tempdir().expect("a temporary folder");
    let out = scratch.path().join("run");
    let big = u64::MAX.to_string();
    for (command, option, values, range) in [
        (
            "run",
            "--jobs",
            &["0", "-1", "10000000", &big, "x", ""][..],
            "1 to 1024",
        ),
        (
            "run",
            "--threads",
            &["0", "5000", "4294967295", "4294967296"],
            "1 to 1024",
        ),
        (
            "run",
            "--lr",
            &["0", "-1e-3", "nan", "inf", "1e-300", "1e9"],
            "1e-30 to 1000",
        ),
        (
            "run",
            "--seeds",
            &["0", "1000000", "4294967295", &big],
            "1 to 10000",
        ),
        ("run", "--steps", &["0", &big], "1 to 1000000000"),
        ("run", "--batch", &["0", "2147483648", &big], "1 to 65536"),
        (
            "run",
            "--d-model",
            &["0", "2147483648", "4294967296"],
            "1 to 65536",
        ),
        ("run", "--layers", &["0", "2147483648"], "1 to 1024"),
        ("run", "--samples", &["0", &big], "1 to 1000000000"),
        (
            "run",
            "--memory-limit",
            &["0", "1", "15M", "nan", "inf", "-4G", "1e30", "4X"],
            "16M to 1024T",
        ),
        (
            "run",
            "--time-limit",
            &["0", "-1", "1e3"],
            "1 to 18446744073709551615",
        ),
        (
            "run",
            "--lengths",
            &["0", "1099511627777", &big, "64..18446744073709551615"],
            "1..1099511627776",
        ),
        (
            "run",
            "--train-length",
            &["0", &big, "4..18446744073709551615"],
            "1..1099511627776",
        ),
        (
            "bench --arch lstm",
            "--seconds",
            &["-1", "nan", "inf", "1e30"],
            "0 to 86400",
        ),
        (
            "bench --arch lstm",
            "--batch",
            &["0", "2147483648", &big],
            "1 to 65536",
        ),
        (
            "bench --arch lstm",
            "--length",
            &["0", "2147483648", &big],
            "1 to 1073741824",
        ),
        (
            "bench --arch lstm",
            "--vocab",
            &["0", "2147483648", "4294967295"],
            "1 to 16777216",
        ),
        (
            "bench --arch lstm",
            "--d-model",
            &["0", "2147483648"],
            "1 to 65536",
        ),
        (
            "bench --arch lstm",
            "--layers",
            &["0", "2147483648"],
            "1 to 1024",
        ),
        (
            "bench --arch lstm",
            "--threads",
            &["0", "4294967295"],
            "1 to 1024",
        ),
        (
            "checkpoint inspect .",
            "--threads",
            &["0", "4294967295"],
            "1 to 1024",
        ),
        ("show parity", "--length", &["0", &big], "1 to"),
    ] {
        for value in values {
            let mut all = words(command);
            all.push(format!("{option}={value}").into());
            if command == "run" {
                all.extend(["--out".into(), out.clone().into()]);
            }
            longhaul(all).expect(2).complains(&[range]);
            assert!(
                !out.exists(),
                "{command} {option}={value} left something behind"
            );
        }
    }
    for sizes in [
        "--d-model 65536 --layers 1024",
        "--batch 65536 --length 1073741824",
        "--vocab 16777216 --d-model 65536",
    ] {
        longhaul_with(&format!("bench --arch lstm {sizes}"), &[])
            .expect(2)
            .complains(&["needs at least", "there are"]);
    }
    for sizes in [
        "--d-model 65536 --layers 1024",
        "--batch 65536 --train-length 1048576",
    ] {
        let text = format!("run --arch lstm --task parity {sizes}");
        longhaul_with(&text, &["--out".as_ref(), out.as_os_str()])
            .expect(2)
            .complains(&["lstm on parity", "needs at least", "there are"]);
        assert!(!out.exists());
    }
    let many = "run --seeds 10000 --lr 1,2,3,4,5,6 --arch lstm --arch mamba --task parity";
    longhaul_with(many, &["--out".as_ref(), out.as_os_str()])
        .expect(2)
        .complains(&["trainings is 120000", "1 to 100000"]);
}

#[test]
fn a_range_of_lengths_has_both_ends() {
    let folder = Folder::default();
    longhaul(folder.run(&[""], "8..20", &[])).expect(0);
    let lengths: Vec<String> = folder
        .results()
        .iter()
        .map(|row| row["eval_length"].clone())
        .collect();
    assert_eq!(lengths, ["8", "16", "20"]);
}

#[test]
fn the_smallest_learning_rate_has_a_file() {
    let folder = Folder::default();
    longhaul(folder.run(&[""], "16", &["--lr", "1e-12,1.2345678901234567e-11"])).expect(0);
    let models = fs::read_dir(folder.file("models"))
        .expect("readable")
        .flatten();
    let names: Vec<String> = models
        .map(|file| file.file_name().to_string_lossy().into_owned())
        .collect();
    assert_eq!(names.len(), 2);
    assert!(names.iter().all(|name| name.len() < 80), "{names:?}");
}

#[test]
fn text_of_others_does_not_steer_the_terminal() {
    let scratch = tempfile::tempdir().expect("a temporary folder");
    let folder = scratch.path().join("a\u{1b}[2Jb\nc");
    fs::create_dir(&folder).expect("writable");
    let config = "{\"model_type\": \"x\\u001b[2Jy\"}";
    fs::write(folder.join("config.json"), config).expect("writable");
    let suite = scratch.path().join("suite.toml");
    fs::write(
        &suite,
        "title = \"t\"\n[[task]]\nname = \"par\\u001b]0;x\\u0007ity\"\n",
    )
    .expect("writable");
    let plugin = folder.join("p\u{1b}[1m.so");
    fs::write(&plugin, "no library").expect("writable");
    for (text, path) in [
        ("checkpoint inspect", folder.as_path()),
        ("run", &suite),
        ("list --plugin", &plugin),
        ("list --plugin-dir", &folder),
        ("eval --lengths 16", &folder),
        ("check", &plugin),
    ] {
        let ran = longhaul_with(text, &[path.as_os_str()]);
        let said = format!("{}{}", ran.stdout, ran.stderr);
        assert!(!said.contains(['\u{1b}', '\u{7}']), "{text}: {said:?}");
        assert!(said.contains("\\u{1b}"), "{text}: {said:?}");
    }
}

#[test]
fn anothers_command_is_repeated_only_as_one_command_of_this_program() {
    let folder = Folder::default();
    longhaul(folder.run(&[""], "16", &[])).expect(0);
    let other = || longhaul(folder.run(&[""], "16,32", &[])).expect(2);
    other().complains(&["by its own command", "--lengths 16"]);
    let text = fs::read_to_string(folder.file("run.toml")).expect("readable");
    let line = text
        .lines()
        .find(|line| line.starts_with("command = "))
        .expect("a command");
    for evil in [
        "rm -rf x; id",
        "longhaul run quick\\u001b[2J",
        "longhaul\\nid",
        "longhaul $(id)",
    ] {
        let changed = text.replace(line, &format!("command = \"{evil}\""));
        fs::write(folder.file("run.toml"), changed).expect("writable");
        let said = other()
            .complains(&["holds no command that Longhaul wrote"])
            .stderr;
        assert!(
            !said.contains("rm -rf") && !said.contains("$(id)"),
            "{said}"
        );
    }
    let changed = text.replace(line, "command = \"/tmp/evil run quick\"");
    fs::write(folder.file("run.toml"), changed).expect("writable");
    let said = other().complains(&["longhaul run quick --resume"]).stderr;
    assert!(!said.contains("/tmp/evil"), "{said}");
}

#[test]
fn the_memory_of_a_feed_is_the_models_whatever_its_length() {
    let peak = |length: u32| {
        let text = format!(
            "bench --arch lstm --mode feed --batch 4 --length {length} --d-model 8 --layers 1 --vocab 16 --threads 1 --seconds 0"
        );
        let ran = longhaul_with(&text, &[]).expect(0);
        let line: serde_json::Value = serde_json::from_str(ran.stdout.trim()).expect("JSON");
        line["peak_memory_bytes"].as_u64().expect("bytes")
    };
    let (short, long) = (peak(1 << 12), peak(1 << 18));
    // Its tokens would be 4 MiB.
    assert!(long < short + (1 << 20), "{short} and {long} bytes");
}
