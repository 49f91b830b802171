//! Tables and plots of a `results.csv`, made again: `redraw RESULTS.CSV FOLDER` prints the tables and
//! writes `summary.csv` and the plots into the folder, which must be there.

use std::path::Path;

use longhaul_results::{Measurement, plot_all, read_csv, render_tables, summarise, write_csv};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let [_, results, folder] = std::env::args()
        .collect::<Vec<_>>()
        .try_into()
        .map_err(|_| "redraw RESULTS.CSV FOLDER")?;
    let (rows, _) = read_csv::<Measurement>(Path::new(&results))?;
    let summary = summarise(&rows);
    let folder = Path::new(&folder);
    write_csv(&folder.join("summary.csv"), &summary)?;
    plot_all(&summary, folder)?;
    print!("{}", render_tables(&summary, 80));
    Ok(())
}
