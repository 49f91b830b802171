//! Suites that cannot be: each mistake is a sentence that names it.

use longhaul_tasks::{Suite, TrainDistribution};

fn error(text: &str) -> String {
    let suite = Suite::from_toml(text, "mine.toml");
    suite.expect_err(text).to_string()
}

#[test]
fn a_key_that_is_none_has_its_line_and_the_nearest() {
    let message = error("[training]\nsteps = 3\nbatchs = 4\n");
    assert!(
        message.contains("mine.toml, line 3") && message.contains("did you mean `batch`"),
        "{message}"
    );
    let message = error("title = 'a'\n\n[[task]]\nname = 'mqar'\nlenghts = [64]\n");
    assert!(
        message.contains("line 5") && message.contains("did you mean `lengths`"),
        "{message}"
    );
    assert!(error("[trainig]\n").contains("did you mean `training`"));
    assert!(error("[model]\nd_model = 8\nlayer = 2\n").contains("its table has d_model, layers"));
    let message = Suite::load("quik").expect_err("unknown").to_string();
    assert!(message.contains("did you mean `quick`"), "{message}");
}

/// Every key with a value of each other type: no panic, and the file and the line are named.
#[test]
fn a_value_of_another_type_is_a_sentence() {
    let keys = [
        (
            "",
            "title description duration training model evaluation limits architecture task target",
        ),
        (
            "[training]\n",
            "steps batch learning_rates train_distributions warmup_steps weight_decay clip_norm seeds",
        ),
        ("[model]\n", "d_model layers"),
        (
            "[evaluation]\n",
            "samples state_norms remembrance initial_states",
        ),
        ("[limits]\n", "time_s memory_bytes"),
        ("[[architecture]]\n", "name"),
        (
            "[[task]]\nname = 'mqar'\n",
            "train_length train_length_min lengths samples steps batch learning_rates train_distributions weight_decay architectures",
        ),
        (
            "[[target]]\n",
            "claim source architecture task part lengths mean depths at_least below above train_distribution",
        ),
    ];
    let values = [
        "{}",
        "{ a = 1 }",
        "[{}]",
        "[[]]",
        "true",
        "1979-05-27",
        "-1",
        "'x'",
        "[-1]",
    ];
    for (table, names) in keys {
        for name in names.split_whitespace() {
            for value in values {
                // What may be read is read: the rest is a sentence.
                let text = format!("{table}{name} = {value}\n");
                if let Err(error) = Suite::from_toml(&text, "mine.toml") {
                    let message = error.to_string();
                    assert!(message.contains("mine.toml"), "{text}{message}");
                }
            }
        }
    }
    for text in [
        "title = {}",
        "description = { a = 1 }",
        "[title]\na = 1",
        "[[title]]",
    ] {
        assert!(error(text).contains("expected a string"), "{}", error(text));
    }
    assert!(error("[training]\nsteps = \"many\"\n").contains("line 2"));
}

#[test]
fn numbers_are_bounded_by_what_can_work() {
    let training = |line: &str| error(&format!("[training]\n{line}\n"));
    for line in [
        "steps = 0",
        "batch = 0",
        "seeds = 0",
        "steps = 9223372036854775807",
        "batch = 9223372036854775807",
        "seeds = 4294967295",
        "warmup_steps = 9223372036854775807",
        "weight_decay = nan",
        "weight_decay = inf",
        "weight_decay = -0.1",
        "weight_decay = 9e18",
        "clip_norm = nan",
        "clip_norm = -inf",
        "clip_norm = -1.0",
        "clip_norm = 9e18",
        "learning_rates = []",
        "learning_rates = [1e-3, 1e-300]",
        "learning_rates = [inf]",
        "learning_rates = [nan]",
        "learning_rates = [0.0]",
        "learning_rates = [-1e-3]",
    ] {
        let key = line.split(' ').next().expect("a key");
        let message = training(line);
        let named = message.contains(key) || message.contains("a learning rate of [training]");
        assert!(named && message.contains("mine.toml"), "{line}: {message}");
    }
    for (text, part) in [
        ("[model]\nd_model = 4294967295\n", "1 to 65536"),
        ("[model]\nlayers = 0\n", "layers of [model] is 0"),
        ("[evaluation]\nsamples = 0\n", "samples of [evaluation]"),
        ("[limits]\ntime_s = 0\n", "time_s of [limits] is 0"),
        (
            "[limits]\nmemory_bytes = 1\n",
            "memory_bytes of [limits] is 1",
        ),
    ] {
        assert!(error(text).contains(part), "{text}{}", error(text));
    }
}

#[test]
fn tasks_and_targets_are_checked_as_the_suite_is() {
    let task = |line: &str| error(&format!("[[task]]\nname = 'mqar'\n{line}\n"));
    for (line, part) in [
        ("lengths = [8]", "takes lengths 16..1048576, not 8"),
        ("lengths = [0]", "not 0"),
        ("lengths = [9223372036854775807]", "not 9223372036854775807"),
        ("train_length = 0", "not 0"),
        (
            "train_length_min = 65\ntrain_length = 64",
            "65 is above train_length 64",
        ),
        ("steps = 0", "steps of task `mqar` is 0"),
        ("batch = 0", "batch of task `mqar` is 0"),
        ("samples = 0", "samples of task `mqar` is 0"),
        ("weight_decay = nan", "weight_decay of task `mqar` is NaN"),
        (
            "learning_rates = []",
            "learning_rates of task `mqar` is empty",
        ),
        ("learning_rates = [inf]", "is inf"),
        ("architectures = []", "leave it out"),
        (
            "train_distributions = []",
            "train_distributions of task `mqar` is empty",
        ),
        (
            "train_distributions = ['linear']",
            "`curriculum:PART` with the part",
        ),
        (
            "train_distributions = ['curriculum:1.5']",
            "not `curriculum:1.5`",
        ),
        (
            "train_length = 64\ntrain_distributions = ['fixed', 'uniform']",
            "task `mqar` has training sequences of 64 tokens only",
        ),
    ] {
        assert!(task(line).contains(part), "{line}: {}", task(line));
    }
    let target = |line: &str| {
        let head = "[[target]]\nclaim = 'c'\nsource = 's'\narchitecture = 'a'\ntask = 'mqar'\n";
        error(&format!("{head}{line}\n"))
    };
    for (line, part) in [
        ("lengths = [64]", "exactly one of"),
        ("lengths = []\nbelow = 0.5", "needs lengths"),
        (
            "lengths = [64]\nbelow = 0.5\nabove = { length = 128 }",
            "exactly one of",
        ),
        ("lengths = [64]\nabove = {}", "has nothing in above"),
        (
            "lengths = [64]\nabove = { part = 'vt' }",
            "`mqar` has no part `vt`",
        ),
        ("lengths = [64]\nabove = { length = 0 }", "not 0"),
        (
            "lengths = [64]\ndepths = [2]\nabove = { depths = [0] }",
            "a depth of target `c` is 2",
        ),
        (
            "lengths = [64]\ndepths = [0.5]\nbelow = 0.5",
            "which only `above` is of",
        ),
        ("lengths = [64]\nabove = { widht = 1 }", "widht"),
        (
            "lengths = [64]\nat_least = nan",
            "accuracy of target `c` is NaN",
        ),
        ("lengths = [64]\nbelow = 1.5", "is 1.5"),
        ("lengths = [0]\nbelow = 0.5", "not 0"),
    ] {
        assert!(target(line).contains(part), "{line}: {}", target(line));
    }
    // A loss may be above 1, and not below 0.
    let head = "[[target]]\nclaim = 'c'\nsource = 's'\narchitecture = 'a'\ntask = 'books'\n";
    let loss = |below: &str| {
        let text = format!("title = 't'\n{head}lengths = [64]\nbelow = {below}\n");
        Suite::from_toml(&text, "suite").map_err(|error| error.to_string())
    };
    assert!(!loss("2.5").is_err_and(|refused| refused.contains("target")));
    let above = "title = 't'\n".to_owned() + head + "lengths = [64]\nabove = { length = 128 }\n";
    let refused = Suite::from_toml(&above, "suite").expect_err("losses");
    assert!(refused.to_string().contains("has losses"), "{refused}");
    assert!(loss("-1.0").is_err_and(|refused| refused.contains("the loss of target `c` is -1")));
}

#[test]
fn distributions_of_training_lengths_are_the_suites_or_the_tasks() {
    let tasks = "[[task]]\nname = 'parity'\ntrain_length_min = 3\ntrain_length = 40\n\
                 [[task]]\nname = 'mqar'\ntrain_length = 64\n";
    let several = "[training]\ntrain_distributions = ['fixed', 'uniform', 'curriculum']\n";
    let refused = error(&format!("{several}{tasks}"));
    assert!(
        refused.contains("task `mqar` has training sequences of 64 tokens only"),
        "{refused}"
    );
    let text = format!("{several}{tasks}train_distributions = ['fixed']\n");
    let suite = Suite::from_toml(&text, "mine.toml").expect("it is one");
    let shown = |all: &[TrainDistribution]| -> Vec<String> {
        all.iter().map(TrainDistribution::to_string).collect()
    };
    assert_eq!(
        shown(&suite.training.train_distributions),
        ["fixed", "uniform", "curriculum:0.5"]
    );
    let own = suite.tasks[1].train_distributions.as_deref();
    assert_eq!(shown(own.expect("its own")), ["fixed"]);
    let none = error("[training]\ntrain_distributions = []\n");
    assert!(
        none.contains("train_distributions of [training] is empty"),
        "{none}"
    );
}

#[test]
fn an_error_in_an_endless_line_does_not_quote_it() {
    let text = format!("title = 't'\ntarget = [{}", "1, ".repeat(1000));
    let message = Suite::from_toml(&text, "long")
        .expect_err("refused")
        .to_string();
    assert!(message.starts_with("suite long: line 2: "), "{message}");
    assert!(message.len() < 200, "{message}");
}
