//! Parts of file names that say a task.

use std::collections::BTreeSet;

use crate::view::TaskView;

/// A name for each of these tasks: with its options where they tell it apart.
pub(crate) fn of_tasks(tasks: &[TaskView<'_>]) -> Vec<String> {
    let mut names = Names::default();
    let name = |task: &TaskView<'_>| {
        let alone = tasks.iter().filter(|other| other.task == task.task).count() == 1;
        names.take(task.task, if alone { "" } else { &task.options })
    };
    tasks.iter().map(name).collect()
}

/// Words for files that are taken already.
#[derive(Default)]
pub(crate) struct Names(BTreeSet<String>);

impl Names {
    /// A word for a task and its options. Words that have become equal are numbered.
    pub fn take(&mut self, task: &str, options: &str) -> String {
        let word = file_word(task, options);
        let numbered = (2..).map(|number| format!("{word}-{number}"));
        let free = |word: &String| !self.0.contains(word);
        let name = std::iter::once(word.clone()).chain(numbered).find(free);
        let name = name.expect("there are more numbers than tasks");
        self.0.insert(name.clone());
        name
    }
}

/// A task and its options as part of a file name.
fn file_word(task: &str, options: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '_';
    let words = if options.is_empty() {
        task.to_owned()
    } else {
        format!("{task}-{options}")
    };
    let word = words.chars().map(|c| if plain(c) { c } else { '-' });
    word.take(150).collect()
}
