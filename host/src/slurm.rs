//! Slurm, as far as longhaul knows it: the text of a batch script, handing it in, and what is in the queue.
//! Scheduling, retries and accounting are Slurm's.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io::ErrorKind;
use std::path::Path;
use std::process::Command;

use crate::run::command::quote;
use crate::text;

/// The script's name in the folder of a run in parts.
pub const SCRIPT: &str = "job.sh";
/// The folder of what the tasks print.
pub const LOGS: &str = "logs";

/// An array job whose tasks each carry out one part of a plan.
pub struct ArrayJob {
    /// Lines of comment on top.
    pub about: Vec<String>,
    /// What it is called in the queue.
    pub name: String,
    /// Tasks, numbered from 1.
    pub tasks: usize,
    /// Options of sbatch, one an item: `--time=12:00:00`.
    pub options: Vec<String>,
    /// The folder of the run, absolute.
    pub folder: OsString,
    /// The folder that the command is carried out in.
    pub here: OsString,
    /// Variables that change what is computed.
    pub variables: Vec<(String, OsString)>,
    /// This program, absolute.
    pub program: OsString,
    /// The words of `longhaul run` beside `--part`.
    pub words: Vec<OsString>,
}

impl ArrayJob {
    /// The script. The command takes the shell's place, so that what Slurm tells the job reaches it: asked to end,
    /// it ends in order within a second, and the requeued task goes on where it was.
    ///
    /// # Errors
    /// A path or an option that has no place in a script.
    pub fn script(&self) -> Result<String, String> {
        let log = Path::new(&self.folder).join(LOGS).join("%a.log");
        let log = log.to_str().ok_or_else(|| unsuited(&self.folder))?;
        let log = log.replace('%', "%%").replace("%%a.log", "%a.log");
        let mut options = vec![
            format!("--job-name={}", self.name),
            format!("--array=1-{}", self.tasks),
            format!("--output={log}"),
            "--open-mode=append".to_owned(),
            "--requeue".to_owned(),
        ];
        options.extend(self.options.iter().cloned());
        let mut script = String::from("#!/bin/bash\n");
        for line in &self.about {
            script.push_str(&format!("# {line}\n"));
        }
        for option in &options {
            script.push_str(&format!("#SBATCH {}\n", in_comment(option)?));
        }
        script.push_str("set -eu\n");
        for (name, value) in &self.variables {
            script.push_str(&format!("export {name}={}\n", quote(value)));
        }
        script.push_str(&format!("cd {}\n", quote(&self.here)));
        let words: Vec<String> = self.words.iter().map(|word| quote(word)).collect();
        script.push_str(&format!(
            "exec {} run --part \"$SLURM_ARRAY_TASK_ID/{}\" {}\n",
            quote(&self.program),
            self.tasks,
            words.join(" ")
        ));
        Ok(script)
    }
}

/// An option as sbatch reads it from a comment: in double quotes where it holds a blank.
fn in_comment(option: &str) -> Result<String, String> {
    let plain = |c: char| !c.is_control() && !"\"'\\#`".contains(c);
    if !option.chars().all(plain) {
        return Err(unsuited(option.as_ref()));
    }
    Ok(match option.split_once('=') {
        _ if !option.contains(' ') => option.to_owned(),
        Some((name, value)) => format!("{name}=\"{value}\""),
        None => format!("\"{option}\""),
    })
}

fn unsuited(what: &OsStr) -> String {
    format!(
        "`{}` holds what cannot stand in a comment of an sbatch script (quotes, backslashes, #, or bytes that are no text)",
        text::line(&what.to_string_lossy())
    )
}

/// Whether sbatch can be started.
///
/// # Errors
/// Why not, and what to do.
pub fn require_sbatch() -> Result<(), String> {
    match Command::new("sbatch").arg("--version").output() {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => Err(
            "there is no sbatch here: submit on a machine that Slurm is set up on, or write the script with --no-submit and hand it in there".to_owned(),
        ),
        Err(error) => Err(format!("sbatch cannot be started: {error}")),
    }
}

/// Hands a script in and returns the number of its job.
///
/// # Errors
/// Slurm's words.
pub fn sbatch(script: &Path) -> Result<String, String> {
    let ran = Command::new("sbatch")
        .arg("--parsable")
        .arg(script)
        .output()
        .map_err(|error| format!("sbatch cannot be started: {error}"))?;
    let words = |bytes: &[u8]| text::line(String::from_utf8_lossy(bytes).trim());
    if ran.status.success() {
        // With several clusters `NUMBER;CLUSTER`.
        let number = words(&ran.stdout);
        return Ok(number.split(';').next().unwrap_or_default().to_owned());
    }
    Err(format!("sbatch refused the script: {}", words(&ran.stderr)))
}

/// The tasks of a script that are in the queue, by their number, with Slurm's word for what they do; `None` where Slurm
/// does not say.
pub fn queue(script: &Path) -> Option<BTreeMap<usize, String>> {
    let ran = Command::new("squeue")
        .args(["--noheader", "--array", "--me", "--format=%K %T %o"])
        .output()
        .ok()
        .filter(|ran| ran.status.success())?;
    Some(tasks_of(&String::from_utf8_lossy(&ran.stdout), script))
}

fn tasks_of(lines: &str, script: &Path) -> BTreeMap<usize, String> {
    let task = |line: &str| {
        let mut words = line.trim().splitn(3, ' ');
        let (index, state, command) = (words.next()?, words.next()?, words.next()?);
        let own = Path::new(command.trim()) == script;
        own.then_some((index.parse().ok()?, state.to_lowercase()))
    };
    lines.lines().filter_map(task).collect()
}

/// Numbers as `--array` takes them: `1-3,7`.
pub fn ranges(numbers: &[usize]) -> String {
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for &number in numbers {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => ranges.push((number, number)),
        }
    }
    let range = |&(first, last): &(usize, usize)| match last - first {
        0 => first.to_string(),
        _ => format!("{first}-{last}"),
    };
    ranges.iter().map(range).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job() -> ArrayJob {
        ArrayJob {
            about: vec!["What it is.".into()],
            name: "longhaul-mine".into(),
            tasks: 8,
            options: vec!["--time=1:00:00".into(), "--comment=two words".into()],
            folder: "/data/my runs/10%a".into(),
            here: "/data/my runs".into(),
            variables: vec![("LONGHAUL_PRODUCTS".into(), "tf32".into())],
            program: "/bin/longhaul".into(),
            words: vec!["--resume".into(), "a b.toml".into()],
        }
    }

    #[test]
    fn the_script_is_what_a_person_would_write() {
        assert_eq!(
            job().script().unwrap(),
            "#!/bin/bash\n\
             # What it is.\n\
             #SBATCH --job-name=longhaul-mine\n\
             #SBATCH --array=1-8\n\
             #SBATCH --output=\"/data/my runs/10%%a/logs/%a.log\"\n\
             #SBATCH --open-mode=append\n\
             #SBATCH --requeue\n\
             #SBATCH --time=1:00:00\n\
             #SBATCH --comment=\"two words\"\n\
             set -eu\n\
             export LONGHAUL_PRODUCTS=tf32\n\
             cd '/data/my runs'\n\
             exec /bin/longhaul run --part \"$SLURM_ARRAY_TASK_ID/8\" --resume 'a b.toml'\n"
        );
    }

    #[test]
    fn what_no_comment_can_hold_is_refused() {
        for bad in ["/x\n#SBATCH --uid=0", "/a\"b", "/a\\b", "/a'b", "/a#b"] {
            let mut job = job();
            job.folder = bad.into();
            let refused = job.script().unwrap_err();
            assert!(refused.contains("sbatch script"), "{refused}");
        }
    }

    #[test]
    fn tasks_of_other_scripts_are_not_ours() {
        let lines = "  3 RUNNING /d/a b/job.sh\n4 PENDING /d/a b/job.sh\nN/A RUNNING (null)\n5 RUNNING /d/other/job.sh\n\nx\n";
        let tasks = tasks_of(lines, Path::new("/d/a b/job.sh"));
        let expected = [(3, "running".to_owned()), (4, "pending".to_owned())];
        assert_eq!(tasks, BTreeMap::from(expected));
    }

    #[test]
    fn numbers_next_to_each_other_are_a_range() {
        assert_eq!(ranges(&[1, 2, 3, 7, 9, 10]), "1-3,7,9-10");
        assert_eq!(ranges(&[4]), "4");
        assert_eq!(ranges(&[]), "");
    }
}
