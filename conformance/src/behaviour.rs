//! Checks of descriptions, options, parameters and errors.

use longhaul_plugin_api::abi_stable::std_types::Tuple2;
use longhaul_plugin_api::client::{ClientError, check_description};
use longhaul_plugin_api::data::{Batch, Logits};
use longhaul_plugin_api::error::ErrorKind;
use longhaul_plugin_api::metadata::{OptionKind, OptionValue};

use crate::subject::{Data, Outcome, Subject, VOCAB, feed};
use crate::tolerance::{SAME_LOGITS, compare};

/// Name, version, licence, authors, and for the architecture title, citation, devices, help.
pub fn metadata(subject: &Subject) -> Outcome {
    let (library, architecture) = (&subject.library, &subject.architecture);
    if let Err(what) = check_description(library) {
        return Outcome::fail(None, what);
    }
    let mut missing = Vec::new();
    let texts = [
        ("`license` in Cargo.toml", library.licence.is_empty()),
        ("`authors` in Cargo.toml", library.authors.is_empty()),
        ("title", architecture.title.is_empty()),
        (
            "citation",
            !architecture.citation.trim_start().starts_with('@'),
        ),
        (
            "devices",
            !architecture.devices.iter().any(|device| device == "cpu"),
        ),
    ];
    missing.extend(
        texts
            .iter()
            .filter(|(_, empty)| *empty)
            .map(|(name, _)| (*name).to_owned()),
    );
    let silent = architecture
        .options
        .iter()
        .filter(|option| option.help.is_empty());
    missing.extend(silent.map(|option| format!("help of option {}", option.name)));
    if missing.is_empty() {
        Outcome::pass(None, format!("{} options", architecture.options.len()))
    } else {
        Outcome::fail(None, format!("missing: {}", missing.join(", ")))
    }
}

/// What every other check begins with: a model is built, makes gradients and reads a token.
pub fn build(subject: &Subject) -> Outcome {
    let check = || -> Result<Outcome, ClientError> {
        let mut model = subject.model(1)?;
        model.loss_and_gradients(Data::new(2, 9, 1).batch())?;
        let mut session = model.new_session(1)?;
        session.feed(Data::new(1, 1, 1).batch(), Logits::Last, VOCAB)?;
        let detail = format!("{} parameter values", model.parameter_values());
        Ok(Outcome::pass(None, detail))
    };
    check().into()
}

/// A value just past each limit, which the option's own parser must refuse.
fn past_limits(kind: &OptionKind) -> Vec<String> {
    match kind {
        OptionKind::Integer { min, max, .. } => [min.checked_sub(1), max.checked_add(1)]
            .into_iter()
            .flatten()
            .map(|value| value.to_string())
            .collect(),
        OptionKind::Float { min, max, .. } => vec![
            min.next_down().to_string(),
            max.next_up().to_string(),
            "NaN".to_owned(),
        ],
        OptionKind::Boolean { .. } => vec!["maybe".to_owned()],
        OptionKind::Choice { .. } => vec!["?!".to_owned()],
        OptionKind::Text { .. } => Vec::new(),
    }
}

/// Every limit that is small enough to try is built, or refused as a bad option; never a crash.
pub fn options(subject: &Subject) -> Outcome {
    let mut tried = 0;
    for option in &subject.architecture.options {
        let values: Vec<OptionValue> = match &option.kind {
            OptionKind::Integer { min, max, .. } => [*min, *max]
                .into_iter()
                .filter(|v| v.abs() <= 256)
                .map(OptionValue::Integer)
                .collect(),
            OptionKind::Float { min, max, .. } => [*min, *max]
                .into_iter()
                .filter(|v| v.abs() <= 64.0)
                .map(OptionValue::Float)
                .collect(),
            OptionKind::Boolean { default } => vec![OptionValue::Boolean(!default)],
            OptionKind::Choice { choices, .. } => {
                choices.iter().cloned().map(OptionValue::Text).collect()
            }
            OptionKind::Text { .. } => vec![OptionValue::Text("?!".into())],
        };
        for text in past_limits(&option.kind) {
            if option.parse(&text).is_ok() {
                let detail = format!("{}={text} is past its limits and taken", option.name);
                return Outcome::fail(None, detail);
            }
        }
        for value in values {
            tried += 1;
            let text = format!("{}={value}", option.name);
            let mut config = subject.config(1, 1);
            for pair in config
                .options
                .iter_mut()
                .filter(|pair| pair.0 == option.name)
            {
                *pair = Tuple2(option.name.clone(), value.clone());
            }
            match subject.build(&config) {
                Ok(mut model) => {
                    if let Err(error) = model.loss_and_gradients(Data::new(2, 9, 1).batch()) {
                        return Outcome::fail(None, format!("{text}: {error}"));
                    }
                }
                Err(error)
                    if matches!(error.kind(), ErrorKind::BadOption | ErrorKind::Unsupported) => {}
                Err(error) => return Outcome::fail(None, format!("{text}: {error}")),
            }
        }
    }
    Outcome::pass(None, format!("{tried} values"))
}

/// What is written is read back, bit by bit, and it changes the logits.
pub fn parameters(subject: &Subject) -> Outcome {
    let check = || -> Result<Outcome, ClientError> {
        let mut model = subject.model(1)?;
        let other = subject.model(2)?;
        let data = Data::new(2, 9, 1);
        let before = feed(&model, &data, &[9])?;
        for index in 0..model.parameters().len() {
            let values = other.read_parameter(index)?;
            model.write_parameter(index, &values)?;
            if model.read_parameter(index)? != values {
                let name = model.parameters()[index].name.clone();
                return Ok(Outcome::fail(
                    None,
                    format!("`{name}` reads back other values"),
                ));
            }
        }
        let after = feed(&model, &data, &[9])?;
        if before == after {
            return Ok(Outcome::fail(None, "other parameters give the same logits"));
        }
        match compare(&after, &feed(&other, &data, &[9])?, SAME_LOGITS) {
            Ok(worst) => Ok(Outcome::pass(
                Some(worst),
                format!("{} parameters", model.parameters().len()),
            )),
            Err((worst, detail)) => Ok(Outcome::fail(Some(worst), detail)),
        }
    };
    check().into()
}

/// Bad tokens, targets and shapes are errors as values, and the model works after them.
pub fn errors(subject: &Subject) -> Outcome {
    let check = || -> Result<Outcome, ClientError> {
        let mut model = subject.model(1)?;
        let good = Data::new(2, 9, 1);
        let loss = model.loss_and_gradients(good.batch())?.loss;
        let mut bad_token = good.clone();
        bad_token.tokens[4] = VOCAB as u32;
        let mut bad_target = good.clone();
        bad_target.targets[4] = VOCAB as i32;
        let mut silent = good.clone();
        silent.targets.fill(-1);
        let short = Batch::new(&good.tokens[..5], &good.targets[..5], 2, 9);
        let cases = [
            ("a token past the vocabulary", bad_token.batch()),
            ("a target past the vocabulary", bad_target.batch()),
            ("a batch without targets", silent.batch()),
            ("a batch shorter than its shape", short),
        ];
        for (what, batch) in cases {
            if model.loss_and_gradients(batch).is_ok() {
                return Ok(Outcome::fail(None, format!("{what} was taken")));
            }
        }
        let mut session = model.new_session(2)?;
        if session.feed(bad_token.batch(), Logits::None, VOCAB).is_ok() {
            return Ok(Outcome::fail(None, "a token past the vocabulary was fed"));
        }
        if model.new_session(0).is_ok() {
            return Ok(Outcome::fail(None, "a session of 0 rows was given"));
        }
        session.reset()?;
        session.feed(good.batch(), Logits::Last, VOCAB)?;
        let again = model.loss_and_gradients(good.batch())?.loss;
        if again != loss {
            return Ok(Outcome::fail(
                None,
                format!("loss {again} after errors, {loss} before"),
            ));
        }
        Ok(Outcome::pass(None, "6 kinds of bad input"))
    };
    check().into()
}

/// Training one model leaves another's bytes alone.
pub fn two_models(subject: &Subject) -> Outcome {
    let check = || -> Result<Outcome, ClientError> {
        let (mut first, second) = (subject.model(1)?, subject.model(1)?);
        let data = Data::new(2, 9, 1);
        let before = feed(&second, &data, &[9])?;
        first.begin_training(&crate::gradients::train_config(3))?;
        for step in 0..3 {
            first.train_step(data.batch(), step)?;
        }
        if feed(&second, &data, &[9])? != before {
            return Ok(Outcome::fail(None, "training one model changed the other"));
        }
        if feed(&first, &data, &[9])? == before {
            return Ok(Outcome::fail(None, "training changed nothing"));
        }
        Ok(Outcome::pass(None, ""))
    };
    check().into()
}
