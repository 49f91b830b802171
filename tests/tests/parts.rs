//! A run in parts, each with a folder of its own, and what is made of them: the same as of one run. On a real
//! scheduler `tests/slurm/run.sh` holds the same.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use longhaul_tests::host::{Folder, Ran, Row, command, finish, longhaul, longhaul_with, rows};

/// What depends on the clock or on memory.
const MEASURED_ANEW: [&str; 3] = ["seconds", "tokens_per_second", "peak_memory_bytes"];

/// Four trainings with two learning rates to choose from; `more` as of [`Folder::run`].
fn run(folder: &Folder, more: &[&str]) -> Ran {
    let mut all = vec!["--lr", "1e-3,2e-3", "--remembrance", "2"];
    all.extend(more);
    longhaul(folder.run(&["", "decay=0.5"], "16,32", &all))
}

fn collect(folder: &Folder, more: &str) -> Ran {
    longhaul_with(&format!("collect {more}"), &[folder.out().as_os_str()])
}

/// The files of a run's folder but for those of its parts, and for what may differ.
fn files(out: &Path) -> BTreeMap<PathBuf, String> {
    let mut all = BTreeMap::new();
    for folder in ["", "models", "outcomes", "plots"].map(|name| out.join(name)) {
        for entry in fs::read_dir(&folder).expect("a folder").flatten() {
            let path = entry.path();
            let name = path.strip_prefix(out).expect("below it").to_owned();
            if path.is_dir()
                || ["run.toml", ".lock"]
                    .iter()
                    .any(|other| name == Path::new(other))
            {
                continue;
            }
            let text = if name.extension().is_some_and(|ending| ending == "csv") {
                let mut rows: Vec<Row> = rows(&path);
                for row in &mut rows {
                    row.retain(|column, _| !MEASURED_ANEW.contains(&column.as_str()));
                }
                format!("{rows:#?}")
            } else {
                format!("{:?}", fs::read(&path).expect("readable"))
            };
            all.insert(name, text);
        }
    }
    all
}

#[test]
fn parts_together_are_what_one_run_leaves() {
    let (single, parts) = (Folder::default(), Folder::default());
    run(&single, &[]).expect(0);
    run(&parts, &["--part", "2/3", "--resume"])
        .expect(0)
        .prints(&["Part 2/3: ", "longhaul collect"]);
    // Nothing is ranked or chosen in a part.
    assert!(!parts.file("parts/2/summary.csv").exists());
    collect(&parts, "").expect(1).prints(&[
        "1 of 3 parts are done",
        "not begun",
        "1,3",
        "Nothing was written",
    ]);
    assert!(!parts.file("results.csv").exists());
    // Until then it is no whole run: nothing reads it as one, or carries it out beside its parts.
    let apart = ["in 3 parts", "--part K/3", "longhaul collect "];
    run(&parts, &["--resume"]).expect(2).complains(&apart);
    let on = |line: &str, path: &str| longhaul_with(line, &[parts.file(path).as_os_str()]);
    for line in [
        "eval --lengths 64",
        "report",
        "reproduce",
        "export --to babilong --out /nowhere/table",
    ] {
        on(line, "").expect(2).complains(&apart);
    }
    on("watch", "")
        .expect(1)
        .prints(&["in 3 parts", "longhaul collect "]);
    on("watch", "parts/2")
        .expect(0)
        .prints(&["This part has ended", "longhaul collect "]);
    assert!(!parts.file("results.csv").exists());
    collect(&parts, "--partial").expect(0).prints(&["not run"]);
    for part in ["1/3", "3/3", "2/3"] {
        run(&parts, &["--part", part, "--resume"]).expect(0);
    }
    collect(&parts, "").expect(0).prints(&["of 3 parts"]);
    let (expected, found) = (files(&single.out()), files(&parts.out()));
    let names = |files: &BTreeMap<PathBuf, String>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&found), names(&expected));
    for (name, text) in &expected {
        assert!(found[name] == *text, "{} differs", name.display());
    }
    let chosen = rows(&parts.file("summary.csv"));
    assert!(chosen.iter().any(|row| row["selected"] == "false"));
    // The whole is a run as any other.
    run(&parts, &["--resume"])
        .expect(0)
        .prints(&["0 models trained"]);
    let again = parts.out().with_file_name("whole");
    let out = again.to_str().expect("text").to_owned();
    collect(&parts, &format!("--out {out}")).expect(0);
    assert_eq!(names(&files(&again)), names(&expected));
}

#[test]
fn a_killed_part_goes_on_where_it_was() {
    let (single, parts) = (Folder::default(), Folder::default());
    let faulty = ["--lr", "1e-3", "--save-every", "0"];
    let arguments =
        |folder: &Folder, more: &[&str]| folder.run(&[""], "16", &[&faulty[..], more].concat());
    longhaul(arguments(&single, &[])).expect(0);
    let mut child = command(arguments(&parts, &["--part", "1/1", "--resume"]))
        .spawn()
        .expect("it starts");
    std::thread::sleep(std::time::Duration::from_millis(300));
    child.kill().expect("it is killed");
    drop(finish(child));
    longhaul(arguments(&parts, &["--part", "1/1", "--resume"])).expect(0);
    collect(&parts, "").expect(0);
    assert_eq!(files(&parts.out()), files(&single.out()));
}

#[test]
fn what_does_not_fit_is_refused() {
    let folder = Folder::default();
    run(&folder, &["--part", "1/2"]).expect(0);
    for (more, words) in [
        (&["--part", "3/2"][..], "`3/2` is no part"),
        (&["--part", "1/9"], "1 to 4"),
        (&["--part", "1/3"], "in 2 parts there and in 3 here"),
        (&["--part", "2/2", "--steps", "9"], "holds another run"),
        (&["--part", "1/2"], "already holds this run"),
    ] {
        run(&folder, more).expect(2).complains(&[words]);
    }
    assert!(!folder.file("parts/2").exists());
    let part = folder.file("parts/1");
    let on = |line: &str| longhaul_with(line, &[part.as_os_str()]).expect(2);
    on("collect").complains(&["is part 1/2 of a run"]);
    on("eval --lengths 64").complains(&["is part 1/2 of a run"]);
    on("report").complains(&["is part 1/2 of a run"]);
    let whole = Folder::default();
    run(&whole, &[]).expect(0);
    collect(&whole, "").expect(2).complains(&["not in parts"]);
    run(&whole, &["--part", "1/2"])
        .expect(2)
        .complains(&["it is whole there"]);
    let none = whole.out().with_file_name("none");
    longhaul_with("collect", &[none.as_os_str()])
        .expect(2)
        .complains(&["not the folder of a run in parts"]);
}

/// `submit slurm` of the run of [`run`].
fn submit(folder: &Folder, more: &[&str]) -> Ran {
    let mut arguments = folder.run(&["", "decay=0.5"], "16,32", &[]);
    arguments.splice(0..1, ["submit".to_owned(), "slurm".to_owned()]);
    arguments.extend(more.iter().map(|&word| word.to_owned()));
    // No scheduler is there, whatever this machine has.
    let mut command = command(arguments);
    command.env("PATH", "/nowhere");
    finish(command.spawn().expect("it starts"))
}

#[test]
fn a_script_is_written_to_be_read_and_its_command_works() {
    let folder = Folder::default();
    submit(&folder, &["--tasks", "2"])
        .expect(3)
        .complains(&["no sbatch", "--no-submit"]);
    assert!(!folder.out().exists(), "nothing was written");
    submit(&folder, &["--tasks", "9", "--no-submit"])
        .expect(2)
        .complains(&["9 parts of 2 trainings"]);
    submit(&folder, &["--tasks", "2", "--dry-run"])
        .expect(0)
        .prints(&["#SBATCH --array=1-2", "Nothing was written or submitted"]);
    assert!(!folder.out().exists(), "nothing was written");
    submit(
        &folder,
        &[
            "--tasks",
            "2",
            "--no-submit",
            "--time",
            "1:00:00",
            "--sbatch=--qos=low",
        ],
    )
    .expect(0)
    .prints(&[
        "2 trainings",
        "in 2 parts, 1 each",
        "sbatch /",
        "longhaul collect",
    ]);
    let script = fs::read_to_string(folder.file("job.sh")).expect("a script");
    for line in [
        "#SBATCH --array=1-2",
        "#SBATCH --requeue",
        "#SBATCH --time=1:00:00",
        "#SBATCH --signal=B:TERM@60",
        "#SBATCH --qos=low",
    ] {
        assert!(
            script.lines().any(|found| found == line),
            "{line}:\n{script}"
        );
    }
    submit(&folder, &["--tasks", "2", "--no-submit"])
        .expect(2)
        .complains(&["was submitted already"]);
    submit(&folder, &["--tasks", "2", "--no-submit", "--resume"])
        .expect(2)
        .complains(&["longhaul collect"]);
    for task in ["1", "2"] {
        let ran = std::process::Command::new("bash")
            .arg(folder.file("job.sh"))
            .env("SLURM_ARRAY_TASK_ID", task)
            .output()
            .expect("bash starts");
        assert!(
            ran.status.success(),
            "{}",
            String::from_utf8_lossy(&ran.stderr)
        );
    }
    collect(&folder, "").expect(0).prints(&["of 2 parts"]);
}
