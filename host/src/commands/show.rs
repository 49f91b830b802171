//! `longhaul show`: an example of a task, inputs above what is to be said.

use longhaul_tasks::{Coordinates, Split, Task, parse_task_of};
use longhaul_text::TextError;

use crate::cli::{ShowArgs, SplitName};
use crate::commands::print;
use crate::exit::CommandError;
use crate::table::{chance, width};

/// Tokens shown in full; of a longer example the ends and what is scored.
const MOST: usize = 240;

/// Tokens kept on either side of what is left out.
const EDGE: usize = 24;

/// Shows an example.
///
/// # Errors
/// An unknown task; a length that it cannot have.
pub fn run(args: &ShowArgs) -> Result<u8, CommandError> {
    let materials = args.materials.load()?;
    let task = parse_task_of(&args.task, &materials).map_err(CommandError::usage)?;
    let length = args
        .length
        .unwrap_or_else(|| task.default_train_lengths().0);
    let split = match args.split {
        SplitName::Train => Split::Train,
        SplitName::Validation => Split::Validation,
        SplitName::Test => Split::Test,
    };
    let at = Coordinates {
        split,
        length,
        seed: args.seed,
        index: args.index,
    };
    let sample = task.sample(&at).map_err(CommandError::usage)?;
    let (mut tokens, mut targets) = (vec![0; sample.len()], vec![0; sample.len()]);
    sample.write(0, &mut tokens, &mut targets);
    let labels: Vec<String> = sample.labels().iter().map(ToString::to_string).collect();
    let options = match task.options_text() {
        options if options.is_empty() => options,
        options => format!(":{options}"),
    };
    let labels = match labels.as_slice() {
        [] => String::new(),
        labels => format!("this one is of {}\n", labels.join(", ")),
    };
    let mut text = format!(
        "{}{options}\n{} tokens, vocabulary {}; {}, of which chance is {}\n{labels}\n",
        task.spec().name,
        tokens.len(),
        task.vocab(),
        task.spec().metric.name(),
        chance(task.chance(length)),
    );
    match sample.request() {
        Some(request) => {
            let decoded = prompt(&tokens, |tokens| materials.tokenizer.decode(tokens));
            text.push_str(&decoded.map_err(CommandError::usage)?);
            text.push_str(&format!(
                "\n\nThat is the prompt. At most {} tokens are generated, and held against: {}\n",
                request.most_new,
                request.references.join(" | ")
            ));
        }
        None => {
            text.push_str(&render(task.as_ref(), &tokens, &targets));
            text.push_str(
                "\nUpper lines: tokens. Lower lines: what is to be said after reading them.\n",
            );
        }
    }
    print(&text).map(|()| 0)
}

/// A prompt's text: all of a short one, of a long one the ends.
fn prompt(
    tokens: &[u32],
    decode: impl Fn(&[u32]) -> Result<String, TextError>,
) -> Result<String, TextError> {
    const ENDS: usize = 1024;
    let between = tokens.len().saturating_sub(2 * ENDS);
    if between == 0 {
        return decode(tokens);
    }
    let (start, end) = (&tokens[..ENDS], &tokens[tokens.len() - ENDS..]);
    let (start, end) = (decode(start)?, decode(end)?);
    Ok(format!("{start}\n[.. {between} more ..]\n{end}"))
}

fn render(task: &dyn Task, tokens: &[u32], targets: &[i32]) -> String {
    let cells = shown(tokens, targets).into_iter().map(|piece| match piece {
        Piece::Token(index) => {
            let target = targets[index];
            let said = if target < 0 {
                String::new()
            } else {
                task.symbol(target as u32).into_owned()
            };
            (task.symbol(tokens[index]).into_owned(), said)
        }
        Piece::Gap(count) => (format!("[.. {count} more ..]"), String::new()),
    });
    let room = width();
    let (mut text, mut upper, mut lower) = (String::new(), String::new(), String::new());
    for (token, said) in cells {
        let cell = token.chars().count().max(said.chars().count());
        if !upper.is_empty() && upper.chars().count() + cell > room {
            flush(&mut text, &mut upper, &mut lower);
        }
        upper.push_str(&format!("{token:cell$} "));
        lower.push_str(&format!("{said:cell$} "));
    }
    flush(&mut text, &mut upper, &mut lower);
    text
}

fn flush(text: &mut String, upper: &mut String, lower: &mut String) {
    text.push_str(upper.trim_end());
    text.push('\n');
    if !lower.trim().is_empty() {
        text.push_str(lower.trim_end());
        text.push('\n');
    }
    upper.clear();
    lower.clear();
}

enum Piece {
    Token(usize),
    Gap(usize),
}

/// Which tokens are shown: all of a short example; of a long one the ends, and the surroundings of
/// what is scored.
fn shown(tokens: &[u32], targets: &[i32]) -> Vec<Piece> {
    let count = tokens.len();
    let near_scored = |index: usize| {
        let around = index.saturating_sub(4)..(index + 5).min(count);
        targets[around].iter().any(|&target| target >= 0)
    };
    let mut pieces = Vec::new();
    let mut left_out = 0;
    for index in 0..count {
        let edge = index < EDGE || index + EDGE >= count;
        if count <= MOST || edge || near_scored(index) {
            if left_out > 0 {
                pieces.push(Piece::Gap(left_out));
                left_out = 0;
            }
            pieces.push(Piece::Token(index));
        } else {
            left_out += 1;
        }
    }
    pieces
}
