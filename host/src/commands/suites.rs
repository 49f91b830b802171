//! `longhaul suites`: what is built in, what each is for, its size, and how long it takes.

use longhaul_tasks::{Suite, TaskEntry, suites};

use crate::commands::print;
use crate::exit::CommandError;
use crate::table::{columns, counted};

/// Lists the built-in suites.
///
/// # Errors
/// Standard output that cannot be written.
pub fn run() -> Result<u8, CommandError> {
    let mut text = String::new();
    for (name, toml) in suites() {
        let suite = Suite::from_toml(toml, name).map_err(CommandError::usage)?;
        let cells = |key: &str, value: String| vec![format!("  {key}"), value];
        text.push_str(&format!("{name} - {}\n", suite.title));
        let mut rows = vec![
            cells("for", suite.description.clone()),
            cells("takes", suite.duration.clone()),
        ];
        let own = suite.tasks.iter().any(|task| task.architectures.is_some());
        if suite.architectures.is_empty() && !own {
            let command = format!("checkpoints, by longhaul checkpoint eval DIR --suite {name}");
            rows.push(cells("reads", command));
        } else {
            rows.push(cells("trains", trainings(&suite)));
            rows.push(cells("of", models(&suite)));
        }
        rows.push(cells("tasks", tasks(&suite)));
        if !suite.targets.is_empty() {
            let claims = counted(suite.targets.len(), "published figure");
            rows.push(cells("holds", format!("{claims} against what it measures")));
        }
        text.push_str(&columns(&rows));
        text.push('\n');
    }
    text.push_str("`longhaul run SUITE` runs one; a TOML file of the same form is a suite too.\n");
    print(&text).map(|()| 0)
}

/// Number of trainings and their size.
fn trainings(suite: &Suite) -> String {
    let of_task = |task: &TaskEntry| {
        let models = task.architectures.as_ref().map(Vec::len);
        let rates = task.learning_rates.as_ref().map(Vec::len);
        let distributions = task.train_distributions.as_ref().map(Vec::len);
        models.unwrap_or(suite.architectures.len())
            * rates.unwrap_or(suite.training.learning_rates.len())
            * distributions.unwrap_or(suite.training.train_distributions.len())
    };
    let models: usize = suite.tasks.iter().map(of_task).sum();
    let (seeds, size) = (suite.training.seeds, &suite.model);
    format!(
        "{} models: seeds {seeds}, d_model {}, layers {}",
        models as u64 * seeds,
        size.d_model,
        size.layers
    )
}

fn models(suite: &Suite) -> String {
    let shared = suite.architectures.iter().map(|entry| &entry.name);
    let own = suite
        .tasks
        .iter()
        .flat_map(|task| task.architectures.iter().flatten());
    joined(shared.chain(own))
}

fn tasks(suite: &Suite) -> String {
    joined(suite.tasks.iter().map(|task| &task.name))
}

/// Names without those already said.
fn joined<'a>(names: impl Iterator<Item = &'a String>) -> String {
    let mut said: Vec<&str> = Vec::new();
    for name in names {
        if !said.contains(&name.as_str()) {
            said.push(name);
        }
    }
    said.join(", ")
}
