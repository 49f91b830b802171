//! Messages and jobs, damaged: whatever comes through the pipe is heard or refused with a sentence, in
//! both directions, and what is heard makes rows.

use longhaul::run::conversation::Conversation;
use longhaul::run::plan::{Evaluation, Unit};
use longhaul::run::records::Common;
use longhaul::worker::protocol::{Job, Message};
use longhaul_fuzz::random::Random;
use longhaul_fuzz::{answer, driver, json};
use longhaul_results::Split;

const JOB: &str = r#"{"architecture":{"library":"lib.so","plugin":"p","plugin_version":"0.1.0","plugin_sha256":"ab","architecture":"arch","values":[],"options":[],"d_model":null,"layers":null,"devices":["cpu"]},"d_model":8,"layers":1,"task":"parity","seed":0,"device":"cpu","threads":1,"training":{"length_min":3,"length":16,"steps":10,"batch":4,"learning_rate":0.001,"warmup_steps":0,"weight_decay":0.1,"clip_norm":1.0},"train":true,"folder":"/runs/a","model":"a.safetensors","identity":"12345678","checkpoint":null,"save_every_s":120,"evaluations":[{"split":"test","length":16,"samples":10},{"split":"test","length":32,"samples":10}]}"#;

/// A whole conversation about it.
const SAID: [&str; 10] = [
    r#"{"message":"started","parameters":5,"notes":["a note"]}"#,
    r#"{"message":"progress","step":0,"loss":0.7,"accuracy":0.5,"gradient_norm":1.5,"learning_rate":0.001,"tokens_per_second":1e5,"seconds":0.1,"record":true}"#,
    r#"{"message":"progress","step":9,"loss":0.5,"accuracy":null,"gradient_norm":null,"learning_rate":0.0001,"tokens_per_second":null,"seconds":0.2,"record":true}"#,
    r#"{"message":"trained","from_step":3,"seconds":0.3}"#,
    r#"{"message":"evaluating","index":0}"#,
    r#"{"message":"evaluated","index":0,"scores":[{"label":"depth=0.50","samples":3,"sum":2.0,"squares":2.0,"weight":3.0,"weight_squares":3.0,"products":2.0,"tokens":3,"nll_sum":1.5},{"label":"","samples":10,"sum":7.0,"squares":7.0,"weight":10.0,"weight_squares":10.0,"products":7.0,"tokens":10,"nll_sum":6.5}],"outcomes":{"examples":10,"answers":"1","scores":"1 1 0 1 1 0 1 1 0 1"},"state_bytes":64,"peak_memory_bytes":1048576,"tokens":160,"seconds":0.1}"#,
    r#"{"message":"evaluating","index":1}"#,
    r#"{"message":"evaluation-failed","index":1,"kind":"out-of-memory","reason":"no room"}"#,
    r#"{"message":"log","level":"info","text":"words"}"#,
    r#"{"message":"done","inside_plugin_s":1.0,"outside_plugin_s":0.1}"#,
];

fn unit() -> Unit {
    let text = r#"{"name":"n","plugin":"p","plugin_version":"0.1.0","plugin_sha256":"ab","architecture":"arch","options":"d_model=8,layers=1","d_model":8,"layers":1,"task":"parity","task_options":"","seed":0,"samples":10,"lengths":[16,32],"training":{"length_min":3,"length":16,"steps":10,"batch":4,"learning_rate":0.001,"warmup_steps":0,"weight_decay":0.1,"clip_norm":1.0}}"#;
    serde_json::from_str(text).expect("a unit")
}

/// The number of a message and what stands in its place; the number after the last is the job's.
fn make(random: &mut Random) -> Vec<u8> {
    let place = random.below(2 * SAID.len()).min(SAID.len());
    let line = SAID.get(place).copied().unwrap_or(JOB);
    [
        format!("{place}\n").into_bytes(),
        json::message(random, line),
    ]
    .concat()
}

/// The host's side: a conversation with one message damaged.
fn hear(place: usize, damaged: &[u8], job: &Job, common: &Common) -> &'static str {
    let test = Evaluation {
        split: Split::Test,
        length: 16,
        samples: 10,
    };
    let mut conversation = Conversation::new(job);
    for (index, line) in SAID.iter().enumerate() {
        let line = if index == place {
            damaged
        } else {
            line.as_bytes()
        };
        let Ok(message) = serde_json::from_slice::<Message>(line) else {
            return "unread messages";
        };
        if let Err(words) = conversation.hear(&message) {
            answer::sentence(&words);
            return "refused messages";
        }
        if let Message::Evaluated(evaluated) = &message {
            for row in common.measured(test, evaluated) {
                assert!(row.correct <= row.samples);
                assert!(row.value.is_none_or(|value| (0.0..=1.0).contains(&value)));
                assert!(!row.label.contains('\u{1b}'));
            }
        }
        let _ = common.point(&message);
    }
    "heard messages"
}

/// The worker's side: a damaged job.
fn take(damaged: &[u8]) -> &'static str {
    let Ok(job) = serde_json::from_slice::<Job>(damaged) else {
        return "unread jobs";
    };
    if let Err(words) = job.check() {
        answer::sentence(&words.to_string());
        return "refused jobs";
    }
    assert!(!job.model.contains('/'));
    if let Some(training) = &job.training {
        let tokens = training.batch.checked_mul(training.length);
        assert!(tokens.is_some_and(|tokens| tokens <= 1 << 30));
        assert!(training.steps.checked_mul(training.batch as u64).is_some());
    }
    let _ = longhaul_tasks::parse_task(&job.task);
    "taken jobs"
}

fn main() {
    let job: Job = serde_json::from_str(JOB).expect("a job");
    let task = longhaul_tasks::parse_task("parity").expect("a task");
    let unit = unit();
    let common = Common::new("id", "cpu", &unit, &unit.id(), task);
    // Damage teaches something only of what is heard without it.
    let whole = hear(SAID.len(), b"", &job, &common);
    assert_eq!(whole, "heard messages", "undamaged");
    let answers = [
        "heard messages",
        "refused messages",
        "unread messages",
        "taken jobs",
        "refused jobs",
        "unread jobs",
    ];
    driver::fuzz("protocol", 6_000, &answers, make, |input| {
        let line = input.iter().position(|&byte| byte == b'\n');
        let (place, rest) = input.split_at(line.expect("a number and a message"));
        let place = String::from_utf8_lossy(place).parse().expect("a number");
        match place < SAID.len() {
            true => hear(place, &rest[1..], &job, &common),
            false => take(&rest[1..]),
        }
    });
}
