//! The fast form of a model against its reference form: naive float64 functions in the places of its
//! recurrences and its attention, everything else the same, parameters included.

use longhaul_plugin_api::client::ClientError;
use longhaul_plugin_api::error::ErrorKind;
use longhaul_plugin_api::metadata::WITHOUT_REFERENCE;

use crate::inference::Worst;
use crate::subject::{Data, Outcome, Subject, WIDTH, feed};
use crate::tolerance::{REFERENCE, compare};

/// Lengths around every chunk's end, and beyond the longest piece that any form takes at once.
const LENGTHS: [usize; 8] = [1, 2, 63, 64, 65, 257, 1000, 1100];

/// Widths that fill no vector, tried where the options allow them.
const WIDTHS: [u32; 3] = [WIDTH, 37, 50];

/// Logits of one feed, at every length and width.
pub fn logits(subject: &Subject) -> Outcome {
    let check = || -> Result<Outcome, ClientError> {
        let mut worst = Worst::new();
        let (mut is_same, mut notes) = (true, Vec::new());
        for width in WIDTHS {
            let mut config = subject.config(1, 1);
            config.d_model = width;
            let Some(slow) = subject.reference(&config) else {
                return Ok(Outcome::skip(match subject.naive() {
                    None => "nothing holds the recurrence against its paper: write its naive form as a `Recurrence` \
                             and record it with `graph.record(..)`"
                        .to_owned(),
                    Some(name) => format!(
                        "the naive form of `{name}` is all there is of it, and nothing to be held against it"
                    ),
                }));
            };
            let fast = match subject.build(&config) {
                Err(error) if width != WIDTH && error.kind() == ErrorKind::BadOption => continue,
                other => other?,
            };
            let slow = subject.build(&slow)?;
            notes = slow.notes();
            for length in LENGTHS {
                // The naive forms are slow: the longest lengths once, with one row.
                if length > 257 && width != WIDTH {
                    continue;
                }
                let rows = if length > 65 { 1 } else { 3 };
                let data = Data::new(rows, length, 19);
                let place = format!("T {length}, D {width}, B {rows}");
                let got = feed(&fast, &data, &[length])?;
                let expected = feed(&slow, &data, &[length])?;
                is_same &= got == expected;
                let result = compare(&got, &expected, REFERENCE);
                if let Some(failed) = worst.take(&place, result) {
                    return Ok(failed);
                }
            }
        }
        if is_same {
            return Ok(Outcome::skip(
                "nothing was compared: the reference form computes the same to the last bit, so it is the fast \
                 form; a recurrence that `graph.record(..)` records has both",
            ));
        }
        let mut outcome = worst.pass();
        let mut notes = notes.iter();
        if let Some(names) = notes.find_map(|note| note.strip_prefix(WITHOUT_REFERENCE)) {
            outcome.detail += &format!("; taken as they are: {names}");
        }
        Ok(outcome)
    };
    check().into()
}
