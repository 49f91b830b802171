//! The fast form of a model against its reference form: naive float64 functions in the places of its
//! recurrences and its attention, everything else the same, parameters included.

use longhaul_plugin_api::client::ClientError;
use longhaul_plugin_api::error::ErrorKind;

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
        for width in WIDTHS {
            let mut config = subject.config(1, 1);
            config.d_model = width;
            let Some(slow) = subject.reference(&config) else {
                return Ok(Outcome::skip("the plugin offers no reference form"));
            };
            let fast = match subject.build(&config) {
                Err(error) if width != WIDTH && error.kind() == ErrorKind::BadOption => continue,
                other => other?,
            };
            let slow = subject.build(&slow)?;
            for length in LENGTHS {
                // The naive forms are slow: the longest lengths once, with one row.
                if length > 257 && width != WIDTH {
                    continue;
                }
                let rows = if length > 65 { 1 } else { 3 };
                let data = Data::new(rows, length, 19);
                let place = format!("T {length}, D {width}, B {rows}");
                let result = compare(
                    &feed(&fast, &data, &[length])?,
                    &feed(&slow, &data, &[length])?,
                    REFERENCE,
                );
                if let Some(failed) = worst.take(&place, result) {
                    return Ok(failed);
                }
            }
        }
        Ok(worst.pass())
    };
    check().into()
}
