//! Prints what the lanes of warps asked for, by kernel, from the files that tests left where `LONGHAUL_EMULATOR_ACCESSES`
//! says: `accesses DIR [LINES]`. Of each kernel the loads and stores of global memory and their sectors over the least
//! that their bytes fill, the accesses of shared memory and the turns of its banks that one took, and its worst lines.

use std::collections::BTreeMap;
use std::path::PathBuf;

use longhaul_emulator::accesses::{Row, table};

/// Sums over some lines of a kernel.
#[derive(Default)]
struct Sum {
    requests: u64,
    passes: u64,
    ideal: u64,
}

impl Sum {
    fn of<'a>(rows: impl Iterator<Item = &'a Row>) -> Self {
        rows.fold(Self::default(), |sum, row| Self {
            requests: sum.requests + row.requests,
            passes: sum.passes + row.passes,
            ideal: sum.ideal + row.ideal,
        })
    }

    fn over(&self) -> f64 {
        self.passes as f64 / self.ideal.max(1) as f64
    }

    fn lost(&self) -> u64 {
        self.passes - self.ideal.min(self.passes)
    }
}

fn main() -> std::io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().expect("usage: accesses DIR [LINES]");
    let lines = arguments
        .next()
        .map_or(1, |count| count.parse().expect("a number"));
    let files: std::io::Result<Vec<PathBuf>> = std::fs::read_dir(folder)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect();
    let rows = table(&files?)?;
    let mut kernels: BTreeMap<&str, Vec<&Row>> = BTreeMap::new();
    for row in &rows {
        kernels.entry(&row.kernel).or_default().push(row);
    }
    let mut kernels: Vec<_> = kernels.into_iter().collect();
    let part = |rows: &[&Row], shared: bool| {
        Sum::of(rows.iter().copied().filter(|row| row.shared == shared))
    };
    // Those that lose most of what they ask for come first.
    kernels.sort_by(|(_, one), (_, other)| {
        let worst = |rows: &[&Row]| part(rows, false).over().max(part(rows, true).over());
        worst(other).total_cmp(&worst(one))
    });
    println!("kernel                           global  sectors/least  shared  ways  worst lines");
    for (kernel, rows) in kernels {
        let (global, shared) = (part(&rows, false), part(&rows, true));
        print!(
            "{kernel:32} {:6} {:14.2} {:7}",
            global.requests,
            global.over(),
            shared.requests
        );
        match shared.requests {
            0 => print!("     -"),
            _ => print!(" {:5.2}", shared.over()),
        }
        let mut worst = rows.clone();
        worst.retain(|row| row.passes > row.ideal);
        worst.sort_by_key(|row| std::cmp::Reverse(Sum::of(std::iter::once(*row)).lost()));
        for row in worst.iter().take(lines) {
            let what = match (row.shared, row.write) {
                (false, false) => "load",
                (false, true) => "store",
                (true, false) => "shared load",
                (true, true) => "shared store",
            };
            print!("  {} {what} {:.2}", row.line, row.over());
        }
        println!();
    }
    Ok(())
}
