//! What comes from outside: things named twice or by a wrong name, numbers that cannot work, text that would
//! steer a terminal. Each works or is refused in a sentence; nothing panics.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;

use longhaul_tests::build::faulty;
use longhaul_tests::host::{Folder, command, finish, longhaul, longhaul_with, words};

#[test]
fn variables_are_refused_by_name() {
    for (name, value) in [
        ("LONGHAUL_SIMD", OsStr::new("bogus")),
        ("LONGHAUL_SIMD", OsStr::from_bytes(b"b\xff")),
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
        (
            "bench --arch lstm --length 4096 --task niah_single_1",
            &["nothing can be trained on task `niah_single_1`"],
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
        let mut all: Vec<OsString> = words(&format!("eval --lengths {length} --arch {arch}"));
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
            let mut all: Vec<OsString> = words(command);
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
