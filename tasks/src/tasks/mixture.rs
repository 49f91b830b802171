//! RULER's thirteen tasks in tokens as one task, for one model that learns them all, as the models of Huang
//! (arXiv 2407.08112) answer all thirteen: examples of the thirteen in turn, each with the tokens of its family.

use std::borrow::Cow;
use std::sync::LazyLock;

use crate::draws::{Draws, Purpose, key};
use crate::options::{Allowed, OptionSpec, OptionValue};
use crate::task::{Coordinates, Label, Metric, Sample, Task, TaskSpec, parse_task};

pub(crate) static SPEC: TaskSpec = TaskSpec {
    name: "ruler-mixture",
    title: "RULER's thirteen tasks in tokens, for one model",
    source: "RULER, arXiv 2404.06654, as in Huang, arXiv 2407.08112",
    length_meaning: "all tokens, of each of the thirteen as of itself",
    scored: "all tokens of the answer, as one answer; label `task` says whose",
    chance_meaning: "the mean of the thirteen",
    version: 2,
    metric: Metric::ExactMatch,
    options: &[OptionSpec {
        name: "tasks",
        help: "all: the thirteen; needles: the eight of them with needles",
        default: OptionValue::Word("all"),
        allowed: Allowed::Words(&["all", "needles"]),
    }],
    materials: &[],
    build: |options, _| {
        let members = match options.word("tasks") {
            "needles" => &MEMBERS[..NEEDLES],
            _ => &MEMBERS[..],
        };
        let options = options.text();
        Ok(Box::new(Mixture {
            key: key(SPEC.name, &options),
            options,
            members,
        }))
    },
};

/// How many of the thirteen, the first ones, have needles.
const NEEDLES: usize = 8;

/// RULER's name, what depths are labelled with where there is one needle, and the task.
const THIRTEEN: [(&str, Option<&str>, &str); 13] = [
    (
        "niah_single_1",
        Some("niah_single_1_depth"),
        "needle:value=number",
    ),
    (
        "niah_single_2",
        Some("niah_single_2_depth"),
        "needle:haystack=varied,value=number",
    ),
    (
        "niah_single_3",
        Some("niah_single_3_depth"),
        "needle:haystack=varied,value=group",
    ),
    (
        "niah_multikey_1",
        None,
        "needle:haystack=varied,value=number,keys=4",
    ),
    (
        "niah_multikey_2",
        None,
        "needle:haystack=needles,value=number",
    ),
    (
        "niah_multikey_3",
        None,
        "needle:haystack=needles,key=group,value=group",
    ),
    (
        "niah_multivalue",
        None,
        "needle:haystack=varied,value=number,values=4",
    ),
    (
        "niah_multiquery",
        None,
        "needle:haystack=varied,value=number,keys=4,queries=4",
    ),
    ("vt", None, "variable-tracking"),
    (
        "cwe",
        None,
        "common-words:common=4,repeats=20,others=3,vocab=2048",
    ),
    ("fwe", None, "frequent-words"),
    ("qa_1", None, "facts"),
    ("qa_2", None, "facts:hops=2"),
];

/// One of the tasks.
struct Member {
    name: &'static str,
    depth: Option<&'static str>,
    task: Box<dyn Task>,
    /// First token id; tasks of one family share theirs.
    low: u32,
}

static MEMBERS: LazyLock<Vec<Member>> = LazyLock::new(|| {
    let mut members: Vec<Member> = Vec::new();
    for (name, depth, text) in THIRTEEN {
        let task = parse_task(text).expect("tests build all thirteen");
        let low = match family(&members, task.as_ref()) {
            Some(member) => member.low,
            None => end(&members),
        };
        members.push(Member {
            name,
            depth,
            task,
            low,
        });
    }
    members
});

/// A member whose token ids a task shares: needles and chains of variables, and facts with either number of hops.
fn family<'a>(members: &'a [Member], task: &dyn Task) -> Option<&'a Member> {
    let family_of = |task: &dyn Task| match task.spec().name {
        "variable-tracking" => "needle",
        other => other,
    };
    let own = family_of(task);
    members
        .iter()
        .find(|member| family_of(member.task.as_ref()) == own)
}

/// The token id after those of all members.
fn end(members: &[Member]) -> u32 {
    let ends = members
        .iter()
        .map(|member| member.low + member.task.vocab() as u32);
    ends.max().unwrap_or(0)
}

struct Mixture {
    options: String,
    key: u64,
    members: &'static [Member],
}

impl Task for Mixture {
    fn spec(&self) -> &'static TaskSpec {
        &SPEC
    }

    fn options_text(&self) -> String {
        self.options.clone()
    }

    fn vocab(&self) -> usize {
        end(self.members) as usize
    }

    fn chance(&self, length: usize) -> Option<f64> {
        let each: Option<Vec<f64>> = self
            .members
            .iter()
            .map(|member| member.task.chance(length))
            .collect();
        each.map(|each| each.iter().sum::<f64>() / each.len() as f64)
    }

    fn min_length(&self) -> usize {
        let least = self.members.iter().map(|member| member.task.min_length());
        least.max().unwrap_or(1)
    }

    fn max_length(&self) -> usize {
        let most = self.members.iter().map(|member| member.task.max_length());
        most.min().unwrap_or(1)
    }

    fn default_train_lengths(&self) -> (usize, usize) {
        (256, 256)
    }

    fn label_cycle(&self) -> u64 {
        let cycles = self.members.iter().map(|member| member.task.label_cycle());
        self.members.len() as u64 * cycles.max().unwrap_or(1)
    }

    fn make(&self, at: &Coordinates, attempt: u64) -> Box<dyn Sample> {
        // Each run of as many examples as there are tasks has each of them, in an order of its own.
        let count = self.members.len();
        let run = Coordinates {
            index: at.index / count as u64,
            ..*at
        };
        let order = Draws::new(self.key, &run, 0, Purpose::Order).distinct(count, count);
        let member = &self.members[order[(at.index % count as u64) as usize]];
        let sample = member.task.make(&run, attempt);
        let mut labels = vec![Label {
            key: "task",
            value: member.name.to_owned(),
        }];
        labels.extend(member.depth.and_then(|key| {
            let depth = sample.labels().iter().find(|label| label.key == "depth")?;
            Some(Label {
                key,
                value: depth.value.clone(),
            })
        }));
        Box::new(Moved {
            sample,
            low: member.low,
            labels,
        })
    }

    fn part(&self, label: &str) -> Option<&dyn Task> {
        let (key, value) = label.split_once('=')?;
        let is_it = |member: &&Member| match key {
            "task" => value == member.name,
            _ => member.depth == Some(key),
        };
        let member = self.members.iter().find(is_it)?;
        Some(member.task.as_ref())
    }

    fn symbol(&self, token: u32) -> Cow<'static, str> {
        let own = self.members.iter().rev().find(|member| member.low <= token);
        own.map_or("_".into(), |member| member.task.symbol(token - member.low))
    }
}

/// An example whose token ids begin elsewhere.
struct Moved {
    sample: Box<dyn Sample>,
    low: u32,
    labels: Vec<Label>,
}

impl Sample for Moved {
    fn len(&self) -> usize {
        self.sample.len()
    }

    fn labels(&self) -> &[Label] {
        &self.labels
    }

    fn write(&self, start: usize, tokens: &mut [u32], targets: &mut [i32]) {
        self.sample.write(start, tokens, targets);
        tokens.iter_mut().for_each(|token| *token += self.low);
        let scored = targets.iter_mut().filter(|target| **target >= 0);
        scored.for_each(|target| *target += self.low as i32);
    }
}
