//! A plan divided into parts that different machines carry out: disjoint, complete, and the same wherever it is
//! divided. A part has a run folder of its own, so no two of them write to a file.

use std::collections::BTreeSet;
use std::fmt::{self, Display};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use longhaul_results::{JournalError, Measurement, files, read_csv};
use serde::{Deserialize, Serialize};

use crate::run::command::quote;
use crate::run::error::RunError;
use crate::run::folder::refuse_strangers;
use crate::run::manifest::{self, Manifest};
use crate::run::plan::{Plan, Unit};

/// The folder of the parts' folders in a run's.
pub const FOLDER: &str = "parts";

/// One part of several: `3/8`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Part {
    /// Which, from 1.
    pub index: usize,
    /// How many there are.
    pub of: usize,
}

impl FromStr for Part {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text.split_once('/').and_then(|(index, of)| {
            let (index, of) = (index.parse().ok()?, of.parse().ok()?);
            (1..=of).contains(&index).then_some(Self { index, of })
        });
        parsed.ok_or_else(|| format!("`{text}` is no part; the third of eight is 3/8"))
    }
}

impl TryFrom<String> for Part {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Part> for String {
    fn from(part: Part) -> Self {
        part.to_string()
    }
}

impl Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.of)
    }
}

/// The run folder of a part, from 1, in the folder of the whole run.
pub fn folder(run: &Path, index: usize) -> PathBuf {
    run.join(FOLDER).join(index.to_string())
}

/// The folder of the whole run that a part's folder is in.
pub fn whole_of(part: &Path) -> Option<&Path> {
    part.parent()?.parent()
}

/// The places of each part's units, in order. Units are dealt from the largest to the smallest, each to the part
/// that has least to do (Graham 1969: at most 4/3 of the best division), and of equals to the first: so the units
/// of one architecture, which stand together in a plan and are of a pace, are spread.
pub fn divide(units: &[Unit], parts: usize) -> Vec<Vec<usize>> {
    let work: Vec<f64> = units.iter().map(Unit::work).collect();
    let mut order: Vec<usize> = (0..units.len()).collect();
    order.sort_by(|&one, &other| work[other].total_cmp(&work[one]).then(one.cmp(&other)));
    let mut dealt = vec![Vec::new(); parts];
    // Of numbers from 0 on, the bits are in the order of the values.
    let mut least: BTreeSet<(u64, usize)> =
        (0..parts).map(|part| (0_f64.to_bits(), part)).collect();
    for place in order {
        let Some((has, part)) = least.pop_first() else {
            break;
        };
        least.insert(((f64::from_bits(has) + work[place]).to_bits(), part));
        dealt[part].push(place);
    }
    dealt.iter_mut().for_each(|places| places.sort_unstable());
    dealt
}

/// Refuses more parts than there are units, or none.
///
/// # Errors
/// The number of parts, with the limit.
pub fn check_count(units: &[Unit], parts: usize) -> Result<(), RunError> {
    if (1..=units.len()).contains(&parts) {
        return Ok(());
    }
    Err(RunError::Input(format!(
        "{parts} parts of {} trainings: give 1 to {}, as a training is not divided",
        units.len(),
        units.len()
    )))
}

impl Plan {
    /// One part of a whole plan. Published figures are held against the whole only.
    ///
    /// # Errors
    /// More parts than units.
    pub fn part(&self, part: Part) -> Result<Self, RunError> {
        check_count(&self.units, part.of)?;
        let places = &divide(&self.units, part.of)[part.index - 1];
        Ok(Self {
            part: Some(part),
            units: places.iter().map(|&at| self.units[at].clone()).collect(),
            architectures: places
                .iter()
                .map(|&at| self.architectures[at].clone())
                .collect(),
            targets: Vec::new(),
            ..self.clone()
        })
    }
}

/// Holds a plan in so many parts against the folder that its parts go into. The first to come writes `run.toml`
/// there, and all others read it: nothing there is locked.
///
/// # Errors
/// Another plan or number of parts there; another program's files; the system's refusal.
pub fn share(run: &Path, plan: &Plan, manifest: &Manifest, parts: usize) -> Result<(), RunError> {
    std::fs::create_dir_all(run).map_err(RunError::io("make the folder", run))?;
    let path = run.join(manifest::FILE);
    if path.symlink_metadata().is_err() {
        // Another part may be the first meanwhile, whose file is then read.
        refuse_strangers(run)?;
        let whole = Manifest {
            parts: Some(parts),
            ..manifest.clone()
        };
        if files::write_new(&path, whole.text().as_bytes()).map_err(RunError::io("write", &path))? {
            return Ok(());
        }
    }
    let there = Manifest::read(run)?;
    let difference = match (there.difference(plan), there.parts) {
        (Some(difference), _) => difference,
        (None, Some(count)) if count == parts => return Ok(()),
        (None, Some(count)) => format!("it is in {count} parts there and in {parts} here"),
        (None, None) => format!("it is whole there and in {parts} parts here"),
    };
    Err(RunError::Input(format!(
        "{} holds another run ({}): {difference}. Give another folder with --out",
        run.display(),
        there.run_id,
    )))
}

/// Whether a folder is that of a run in parts which nobody has taken together yet, so that it has no records.
pub fn is_apart(run: &Path, manifest: &Manifest) -> bool {
    if manifest.parts.is_none() {
        return false;
    }
    match read_csv::<Measurement>(&run.join("results.csv")) {
        // `collect` opens the file before it has rows for it.
        Ok((rows, _)) => rows.is_empty(),
        Err(JournalError::Io { source, .. }) => source.kind() == ErrorKind::NotFound,
        Err(_) => false,
    }
}

/// Refuses such a folder.
///
/// # Errors
/// How its parts are taken together, and one is carried out.
pub fn refuse_apart(run: &Path, manifest: &Manifest) -> Result<(), RunError> {
    let Some(count) = manifest.parts.filter(|_| is_apart(run, manifest)) else {
        return Ok(());
    };
    Err(RunError::Input(format!(
        "{} is the folder of a run in {count} parts, which are not taken together yet. Do that first, or see what is \
         left:\n  {}\nA part is carried out by the run's command with --part K/{count} and --resume",
        run.display(),
        collect_command(run)
    )))
}

/// The command that takes the parts of a run together.
pub fn collect_command(run: &Path) -> String {
    format!("longhaul collect {}", quote(run.as_os_str()))
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;
    use crate::run::manifest::LimitsRecord;
    use crate::run::records::tests::unit;

    #[test]
    fn parts_are_written_as_they_are_read() {
        let part: Part = "3/8".parse().unwrap();
        assert_eq!((part.index, part.of), (3, 8));
        assert_eq!(part.to_string(), "3/8");
        for bad in ["0/8", "9/8", "3", "3/", "/8", "a/b", "-1/8", "0/0", ""] {
            let refused = bad.parse::<Part>().unwrap_err();
            assert!(refused.contains("3/8"), "{refused}");
        }
    }

    #[test]
    fn a_division_is_disjoint_complete_even_and_the_same_again() {
        let units: Vec<Unit> = (0..97)
            .map(|seed| Unit {
                seed,
                d_model: 16 << (seed % 3),
                ..unit(10 + 7 * (seed % 11))
            })
            .collect();
        for parts in [1, 2, 8, 97] {
            let dealt = divide(&units, parts);
            assert_eq!(dealt.len(), parts);
            let mut all: Vec<usize> = dealt.iter().flatten().copied().collect();
            all.sort_unstable();
            assert_eq!(all, (0..97).collect::<Vec<_>>());
            assert_eq!(divide(&units, parts), dealt);
            let work = |places: &Vec<usize>| places.iter().map(|&at| units[at].work()).sum::<f64>();
            let most = dealt.iter().map(work).fold(0.0, f64::max);
            let mean = dealt.iter().map(work).sum::<f64>() / parts as f64;
            let largest = units.iter().map(Unit::work).fold(0.0, f64::max);
            // No division is better than the mean or the largest unit.
            assert!(
                most <= 4.0 / 3.0 * mean.max(largest),
                "{parts}: {most} {mean}"
            );
        }
        assert!(divide(&units, 97).iter().all(|places| places.len() == 1));
        assert!(check_count(&units, 97).is_ok());
        let refused = check_count(&units, 98).unwrap_err().to_string();
        assert!(refused.contains("1 to 97"), "{refused}");
    }

    #[test]
    fn parts_that_begin_together_share_a_folder() {
        let units: Vec<Unit> = (0..4)
            .map(|seed| Unit {
                name: format!("u{seed}"),
                seed,
                ..unit(10)
            })
            .collect();
        let plan = manifest::tests::plan(units);
        let limits = LimitsRecord {
            time_s: None,
            memory_bytes: None,
        };
        let manifest = Manifest::new(&plan, 1, 1, limits);
        for _ in 0..50 {
            let parent = tempfile::tempdir().unwrap();
            let run = parent.path().join("run");
            let together = Barrier::new(4);
            let begin = || {
                together.wait();
                share(&run, &plan, &manifest, 4)
            };
            std::thread::scope(|scope| {
                let parts: Vec<_> = (0..4).map(|_| scope.spawn(begin)).collect();
                for part in parts {
                    part.join().unwrap().unwrap();
                }
            });
        }
    }

    #[test]
    fn equal_units_of_one_architecture_are_spread() {
        let units: Vec<Unit> = (0..12)
            .map(|index| Unit {
                architecture: format!("a{}", index / 3),
                seed: index % 3,
                ..unit(10)
            })
            .collect();
        for places in divide(&units, 3) {
            let mut names: Vec<&str> = places.iter().map(|&at| &*units[at].architecture).collect();
            names.dedup();
            assert_eq!(names, ["a0", "a1", "a2", "a3"]);
        }
    }
}
