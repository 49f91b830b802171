//! Changes to CSV files, cell by cell and line by line.

use crate::random::Random;
use crate::text::{AWKWARD, string};

/// A file with one to three cells changed, or lines removed, doubled, exchanged or cut. Cells that are
/// quoted with commas inside are cut as they come: that is damage too.
pub fn document(random: &mut Random, from: &str) -> String {
    let mut lines: Vec<String> = from.lines().map(str::to_owned).collect();
    for _ in 0..=random.below(3) {
        let line = random.below(lines.len());
        if lines.is_empty() {
            break;
        }
        match random.below(8) {
            0 => drop(lines.remove(line)),
            1 => lines.insert(line, lines[line].clone()),
            2 => {
                let other = random.below(lines.len());
                lines.swap(line, other);
            }
            3 => lines[line] = string(random, &lines[line]),
            _ => lines[line] = cell(random, &lines[line]),
        }
    }
    let end = if random.one_in(8) { "" } else { "\n" };
    lines.join(if random.one_in(16) { "\r\n" } else { "\n" }) + end
}

fn cell(random: &mut Random, line: &str) -> String {
    let mut cells: Vec<String> = line.split(',').map(str::to_owned).collect();
    let place = random.below(cells.len());
    cells[place] = match random.below(3) {
        0 => string(random, &cells[place]),
        _ => (*random.choose(AWKWARD)).to_owned(),
    };
    cells.join(",")
}
