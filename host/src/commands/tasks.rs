//! `longhaul tasks`: what models are trained and measured on.

use longhaul_tasks::{TaskSpec, build, parse_task_of, registry};

use crate::cli::TasksArgs;
use crate::commands::print;
use crate::exit::CommandError;
use crate::table::{chance, columns};

/// Lists tasks, or one in full.
///
/// # Errors
/// An unknown task.
pub fn run(args: &TasksArgs) -> Result<u8, CommandError> {
    let cells = |cells: &[&str]| {
        cells
            .iter()
            .map(|cell| (*cell).to_owned())
            .collect::<Vec<_>>()
    };
    let materials = args.materials.load()?;
    let Some(name) = &args.task else {
        let mut rows = vec![cells(&["task", "metric", "chance", "what"])];
        for spec in registry() {
            let task = build(spec.name, &[], &materials).map_err(CommandError::usage)?;
            let chance = chance(task.chance(task.default_train_lengths().1));
            rows.push(cells(&[spec.name, spec.metric.name(), &chance, spec.title]));
        }
        let hint =
            "\n`longhaul tasks TASK` shows options and source; `longhaul show TASK` an example.\n";
        return print(&format!("{}{hint}", columns(&rows))).map(|()| 0);
    };
    let task = parse_task_of(name, &materials).map_err(CommandError::usage)?;
    let spec: &TaskSpec = task.spec();
    let (min, max) = task.default_train_lengths();
    let mut text = format!("{} - {}\n\n", spec.name, spec.title);
    text.push_str(&columns(&[
        cells(&["  source", spec.source]),
        cells(&["  length", spec.length_meaning]),
        cells(&[
            "  lengths",
            &format!("{}..{}", task.min_length(), task.max_length()),
        ]),
        cells(&[
            "  trained at",
            &if spec.metric.is_generated() {
                "never: its answers are generated".to_owned()
            } else if min == max {
                min.to_string()
            } else {
                format!("{min}..{max}")
            },
        ]),
        cells(&["  vocabulary", &task.vocab().to_string()]),
        cells(&["  scored", spec.scored]),
        cells(&["  metric", spec.metric.name()]),
        cells(&[
            "  chance",
            &format!(
                "{} at {max} tokens: {}",
                chance(task.chance(max)),
                spec.chance_meaning
            ),
        ]),
        cells(&["  options", &task.options_text()]),
    ]));
    if !spec.options.is_empty() {
        text.push_str("\nOptions (name, default, allowed, what):\n");
        let rows: Vec<Vec<String>> = spec
            .options
            .iter()
            .map(|option| {
                cells(&[
                    &format!("  {}", option.name),
                    &option.default.to_string(),
                    &option.allowed.to_string(),
                    option.help,
                ])
            })
            .collect();
        text.push_str(&columns(&rows));
    }
    print(&text).map(|()| 0)
}
