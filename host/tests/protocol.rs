//! Mutated messages and jobs: whatever comes through the pipe is heard or refused with a sentence, in both
//! directions, and what is heard makes rows.

use longhaul::run::conversation::Conversation;
use longhaul::run::plan::{Evaluation, Unit};
use longhaul::run::records::Common;
use longhaul::worker::protocol::{Job, Message};
use longhaul_results::Split;

/// Inputs a test.
const INPUTS: usize = 20_000;

const JOB: &str = r#"{"architecture":{"library":"lib.so","plugin":"p","plugin_version":"0.1.0","plugin_sha256":"ab","architecture":"arch","values":[],"options":[],"d_model":null,"layers":null,"devices":["cpu"]},"d_model":8,"layers":1,"task":"parity","train_length":16,"seed":0,"device":"cpu","threads":1,"training":{"length_min":3,"length":16,"steps":10,"batch":4,"learning_rate":0.001,"warmup_steps":0,"weight_decay":0.1,"clip_norm":1.0},"folder":"/runs/a","model":"a.safetensors","identity":"12345678","checkpoint":null,"evaluations":[{"split":"test","length":16,"samples":10},{"split":"test","length":32,"samples":10}]}"#;

/// A whole conversation about it.
const SAID: [&str; 10] = [
    r#"{"message":"started","parameters":5,"notes":["a note"]}"#,
    r#"{"message":"progress","step":0,"loss":0.7,"accuracy":0.5,"gradient_norm":1.5,"learning_rate":0.001,"tokens_per_second":1e5,"seconds":0.1,"record":true}"#,
    r#"{"message":"progress","step":9,"loss":0.5,"accuracy":null,"gradient_norm":null,"learning_rate":0.0001,"tokens_per_second":null,"seconds":0.2,"record":true}"#,
    r#"{"message":"trained","seconds":0.3}"#,
    r#"{"message":"evaluating","index":0}"#,
    r#"{"message":"evaluated","index":0,"scores":[{"label":"depth=0.50","samples":3,"correct":2,"tokens":3,"nll_sum":1.5},{"label":"","samples":10,"correct":7,"tokens":10,"nll_sum":6.5}],"state_bytes":64,"peak_memory_bytes":1048576,"tokens":160,"seconds":0.1}"#,
    r#"{"message":"evaluating","index":1}"#,
    r#"{"message":"evaluation-failed","index":1,"kind":"out-of-memory","reason":"no room"}"#,
    r#"{"message":"log","level":"info","text":"words"}"#,
    r#"{"message":"done","inside_plugin_s":1.0,"outside_plugin_s":0.1}"#,
];

/// Numbers and words that are put in a value's place.
const ODD: [&str; 16] = [
    "0",
    "-1",
    "2147483648",
    "4294967296",
    "9223372036854775807",
    "18446744073709551615",
    "1e308",
    "-5",
    "1e-320",
    "null",
    "true",
    "[]",
    "{}",
    "\"\"",
    "\"\\u001b[2J../../x\"",
    "1e999",
];

/// A generator of numbers that is the same everywhere (xorshift, Marsaglia 2003).
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }
}

/// A text with one value replaced, or a few bytes changed, or cut off.
fn mutated(text: &str, dice: &mut Dice) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    match dice.below(4) {
        0 => bytes.truncate(dice.below(bytes.len())),
        1 => {
            for _ in 0..=dice.below(3) {
                let place = dice.below(bytes.len());
                bytes[place] = dice.below(256) as u8;
            }
        }
        _ => {
            let values: Vec<usize> = text.match_indices(':').map(|found| found.0 + 1).collect();
            let begin = values[dice.below(values.len())];
            let end = text[begin..]
                .find([',', '}'])
                .map_or(text.len(), |end| begin + end);
            bytes.splice(begin..end, ODD[dice.below(ODD.len())].bytes());
        }
    }
    bytes
}

fn unit() -> Unit {
    let text = r#"{"name":"n","plugin":"p","plugin_version":"0.1.0","plugin_sha256":"ab","architecture":"arch","options":"d_model=8,layers=1","d_model":8,"layers":1,"task":"parity","task_options":"","seed":0,"samples":10,"lengths":[16,32],"training":{"length_min":3,"length":16,"steps":10,"batch":4,"learning_rate":0.001,"warmup_steps":0,"weight_decay":0.1,"clip_norm":1.0}}"#;
    serde_json::from_str(text).expect("a unit")
}

#[test]
fn the_host_hears_or_refuses_whatever_a_worker_says() {
    let job: Job = serde_json::from_str(JOB).expect("a job");
    let task = longhaul_tasks::parse_task("parity").expect("a task");
    let unit = unit();
    let common = Common::new("id", "cpu", &unit, &unit.id(), task);
    let test = Evaluation {
        split: Split::Test,
        length: 16,
        samples: 10,
    };
    let (mut dice, mut heard, mut refused) = (Dice(1), 0, 0);
    for _ in 0..INPUTS {
        let mut conversation = Conversation::new(&job);
        let place = dice.below(SAID.len());
        for (index, line) in SAID.iter().enumerate() {
            let line = if index == place {
                mutated(line, &mut dice)
            } else {
                line.as_bytes().to_vec()
            };
            let Ok(message) = serde_json::from_slice::<Message>(&line) else {
                refused += 1;
                break;
            };
            if let Err(words) = conversation.hear(&message) {
                assert!(!words.is_empty());
                refused += 1;
                break;
            }
            heard += 1;
            if let Message::Evaluated(evaluated) = &message {
                for row in common.measured(test, evaluated) {
                    assert!(row.correct <= row.samples);
                    assert!(row.value.is_none_or(|value| (0.0..=1.0).contains(&value)));
                    assert!(!row.label.contains('\u{1b}'));
                }
            }
            let _ = common.point(&message);
        }
    }
    assert!(
        heard > INPUTS && refused > INPUTS / 4,
        "{heard} heard, {refused} refused"
    );
}

#[test]
fn a_worker_refuses_a_job_that_cannot_be() {
    let (mut dice, mut taken) = (Dice(2), 0);
    for _ in 0..INPUTS {
        let Ok(job) = serde_json::from_slice::<Job>(&mutated(JOB, &mut dice)) else {
            continue;
        };
        if job.check().is_err() {
            continue;
        }
        taken += 1;
        assert!(!job.model.contains('/'));
        if let Some(training) = &job.training {
            assert!(
                training
                    .batch
                    .checked_mul(job.train_length)
                    .is_some_and(|tokens| tokens <= 1 << 30)
            );
            assert!(training.steps.checked_mul(training.batch as u64).is_some());
        }
        let _ = longhaul_tasks::parse_task(&job.task);
    }
    assert!(taken > INPUTS / 100, "{taken} taken");
}
