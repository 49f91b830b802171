//! `longhaul list`: the architectures that plugins offer.

use longhaul_tasks::bounds;

use crate::architecture::{IN_EVALUATIONS, INITIAL_STATE};
use crate::catalogue::{Architecture, Catalogue, Plugin};
use crate::cli::ListArgs;
use crate::commands::print;
use crate::exit::CommandError;
use crate::find::find_all;
use crate::table::columns;

/// Lists architectures, or one in full.
///
/// # Errors
/// No plugins; an unknown architecture.
pub fn run(args: &ListArgs) -> Result<u8, CommandError> {
    let catalogue = Catalogue::scan(&args.plugins)?;
    let chosen: Vec<(&Plugin, &Architecture)> = match &args.architecture {
        None => catalogue.architectures().collect(),
        Some(name) => find_all(name, &catalogue)?,
    };
    if args.json {
        let plugins: Vec<&Plugin> = catalogue
            .plugins
            .iter()
            .filter(|plugin| chosen.iter().any(|(other, _)| other.path == plugin.path))
            .collect();
        let text = serde_json::to_string_pretty(&plugins).expect("plain data");
        return print(&format!("{text}\n")).map(|()| 0);
    }
    let text = if args.all || args.architecture.is_some() {
        chosen
            .iter()
            .map(|(plugin, architecture)| in_full(plugin, architecture))
            .collect::<Vec<_>>()
            .join("\n")
    } else {
        overview(&chosen)
    };
    print(&text).map(|()| 0)
}

fn overview(chosen: &[(&Plugin, &Architecture)]) -> String {
    let mut rows = vec![cells(&[
        "architecture",
        "family",
        "state",
        "devices",
        "what",
    ])];
    for (_, architecture) in chosen {
        rows.push(cells(&[
            &architecture.name,
            &architecture.family,
            &architecture.state_growth,
            &architecture.devices.join(","),
            &architecture.title,
        ]));
    }
    format!(
        "{}\n`longhaul list ARCH` shows options, defaults, limits and citation.\n",
        columns(&rows)
    )
}

fn in_full(plugin: &Plugin, architecture: &Architecture) -> String {
    let mut text = format!("{} - {}\n\n", architecture.name, architecture.title);
    let mut rows = vec![
        cells(&[
            "  plugin",
            &format!("{} {} ({})", plugin.name, plugin.version, plugin.licence),
        ]),
        cells(&["  file", &plugin.path.display().to_string()]),
        cells(&[
            "  built on",
            &format!("{}, ABI {}", plugin.kit, plugin.api_version),
        ]),
        cells(&["  family", &architecture.family]),
        cells(&[
            "  state",
            &format!(
                "{} in length, at the default options",
                architecture.state_growth
            ),
        ]),
        cells(&["  devices", &architecture.devices.join(", ")]),
        cells(&["  can", &architecture.capabilities.join(", ")]),
    ];
    if !architecture.naive.is_empty() {
        let names = architecture.naive.join(", ");
        let what = format!("{names}: computed number by number, on the CPU alone");
        rows.push(cells(&["  slow", &what]));
    }
    text.push_str(&columns(&rows));
    text.push_str("\nOptions (name, default, allowed; what):\n");
    let row = |name: &str, default: &str, allowed: &str, what: &str| {
        cells(&[&format!("  {name}"), default, &format!("{allowed}; {what}")])
    };
    let mut rows: Vec<Vec<String>> = architecture
        .options
        .iter()
        .map(|option| {
            let kind = option.spec().kind;
            let default = kind.default_value().to_string();
            row(&option.name, &default, &kind.limits(), &option.help)
        })
        .collect();
    for (name, range, what) in [
        ("d_model", bounds::D_MODEL, "model width, as --d-model"),
        ("layers", bounds::LAYERS, "layers, as --layers"),
    ] {
        let allowed = format!("integer {}..{}", range.start(), range.end());
        rows.push(row(name, "suite's", &allowed, what));
    }
    rows.push(row(
        INITIAL_STATE,
        "zero",
        "zero | noise:DEVIATION | fitted | passed",
        "recurrent state that training sequences start from",
    ));
    rows.push(row(
        &format!("{IN_EVALUATIONS}OPTION"),
        "as trained",
        "as OPTION",
        "its value in evaluations alone",
    ));
    text.push_str(&columns(&rows));
    text.push_str(&format!("\nCite:\n{}\n", architecture.citation.trim_end()));
    text
}

fn cells(cells: &[&str]) -> Vec<String> {
    cells.iter().map(|cell| (*cell).to_owned()).collect()
}
