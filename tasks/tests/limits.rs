//! Every allowed option and length makes an example, in bounded time.

use std::time::{Duration, Instant};

use longhaul_tasks::{
    Allowed, Coordinates, Metric, Split, TaskError, TaskSpec, parse_task, registry,
};

/// Values from one end of what an option allows to the other.
fn values(allowed: Allowed) -> Vec<String> {
    match allowed {
        Allowed::Integer(min, max) => {
            let middle = ((min.max(1) * max) as f64).sqrt() as u64;
            [min, min + 1, middle, max].map(|v| v.to_string()).to_vec()
        }
        Allowed::Float(min, max) => [min, (min + max) / 3.0, 1.0, 3.0, max]
            .map(|v| v.clamp(min, max).to_string())
            .to_vec(),
        Allowed::Boolean => vec!["false".to_owned(), "true".to_owned()],
        Allowed::Words(words) => words.iter().map(|&word| word.to_owned()).collect(),
        Allowed::WordOrFloat(word, min, max) => {
            vec![
                word.to_owned(),
                min.to_string(),
                "0.37".to_owned(),
                max.to_string(),
            ]
        }
    }
}

/// Most combinations of a task that are tried.
const MOST: usize = 400;

/// Every combination of those values, or each n-th where they are many.
fn combinations(spec: &TaskSpec) -> Vec<String> {
    let all = spec
        .options
        .iter()
        .fold(vec![String::new()], |texts, option| {
            let values = values(option.allowed);
            let more = |text: &String| -> Vec<String> {
                let more = values
                    .iter()
                    .map(|value| format!("{text},{}={value}", option.name));
                more.collect()
            };
            texts.iter().flat_map(more).collect()
        });
    // A prime, so that every value of every option is met.
    let step = [1, 3, 7, 17, 37, 79, 163];
    let step = step.into_iter().find(|step| all.len() / step <= MOST);
    all.into_iter().step_by(step.expect("a step")).collect()
}

#[test]
fn all_options_and_lengths_make_an_example_in_bounded_time() {
    for spec in registry() {
        let mut made = 0;
        for options in combinations(spec) {
            let text = format!("{}:{}", spec.name, options.trim_start_matches(','));
            // Options that do not go together are refused by name.
            let Ok(task) = parse_task(&text) else {
                continue;
            };
            if let Err(error) = task.ready() {
                // What it asks for is not included; tests/ruler.rs has it.
                assert!(error.to_string().contains("--qa"), "{text}: {error}");
                made += 1;
                continue;
            }
            let (min, max) = (task.min_length(), task.max_length());
            for (length, most) in [
                (min, 2000),
                ((min + 1).min(max), 2000),
                ((2 * min).min(max), 2000),
                (max, 30_000),
            ] {
                // Long ones are tried with a few options only.
                made += 1;
                if length > 1 << 16 && made % 97 != 0 {
                    continue;
                }
                for split in [Split::Train, Split::Validation, Split::Test] {
                    let begun = Instant::now();
                    let at = Coordinates {
                        split,
                        length,
                        seed: 0,
                        index: 5,
                    };
                    let sample = match task.sample(&at) {
                        // cwe's difficulty steps up with length, so that its lengths have a gap.
                        Err(TaskError::BadCombination { .. }) if spec.name == "cwe" => continue,
                        sample => sample.expect(&text),
                    };
                    match sample.request() {
                        None => assert_eq!(sample.len(), length, "{text}"),
                        Some(request) => {
                            assert!(sample.len() + request.most_new <= length, "{text}");
                        }
                    }
                    let took = begun.elapsed();
                    assert!(
                        took < Duration::from_millis(most),
                        "{text} at {length}: {took:?}"
                    );
                }
                let begun = Instant::now();
                let Some(chance) = task.chance(length) else {
                    // Generated answers and losses have none.
                    let right_or_wrong = [Metric::TokenAccuracy, Metric::ExactMatch];
                    assert!(!right_or_wrong.contains(&spec.metric), "{text}");
                    continue;
                };
                assert!(
                    (0.0..=1.0).contains(&chance),
                    "{text} at {length}: {chance}"
                );
                assert!(begun.elapsed() < Duration::from_secs(60), "{text}: chance");
            }
        }
        assert!(made > 0, "{}", spec.name);
    }
}
