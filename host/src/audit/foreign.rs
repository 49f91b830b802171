//! Scores of other tools' files as rows of records, to stand beside those of runs. Nothing says that a tool's examples
//! are those of the task of that name here, so the tool is among the task's options: such rows stand in tables of
//! their own and are compared with each other alone.

use longhaul_results::metric::Kind;
use longhaul_results::{Measurement, Status};
use longhaul_text::sha256_of;

use super::{Audited, Score};

/// What marks a row: the option of its task, and its architecture.
pub const MARK: &str = "foreign";

/// Rows of the scores that were made again of a file's items, and a sentence for each other one. `sha256` is the
/// file's.
pub fn rows(file: &Audited, sha256: &str) -> (Vec<Measurement>, Vec<String>) {
    let (mut rows, mut left_out) = (Vec::new(), Vec::new());
    for score in &file.scores {
        match row(file, score, sha256) {
            Ok(row) => rows.push(row),
            Err(why) => left_out.push(format!(
                "{}: {} of {} is left out: {why}",
                file.path.display(),
                score.metric,
                score.task
            )),
        }
    }
    (rows, left_out)
}

fn row(file: &Audited, score: &Score, sha256: &str) -> Result<Measurement, &'static str> {
    let items = score.samples.filter(|_| score.of_items);
    let (Some(samples), Some(value)) = (items, score.value) else {
        return Err("without its items no interval can be made; give the file that has them");
    };
    let Some((interval, (low, high))) = score.interval else {
        return Err("it has no interval");
    };
    let Some(eval_length) = score.length.filter(|&length| length > 0) else {
        return Err("the file does not say at how many tokens");
    };
    // Of a metric that is not known here an item is right or wrong, or there is no telling what its numbers are.
    let known = Kind::named(&score.metric);
    let correct = (value * samples as f64).round();
    let is_whole = (correct / samples as f64 - value).abs() < 1e-9 && interval == "wilson";
    let correct = match known.unwrap_or(Kind::ZeroOne) {
        Kind::ZeroOne if is_whole => Some(correct as u64),
        Kind::ZeroOne => {
            return Err("its items are not right or wrong, and the metric is none that is known");
        }
        _ => None,
    };
    let name = file.path.file_name().unwrap_or_default().to_string_lossy();
    let model = file
        .model
        .clone()
        .unwrap_or_else(|| name.clone().into_owned());
    let mark = format!("{MARK}={}", file.tool);
    let of = [sha256, &score.task, &eval_length.to_string(), &score.metric].join("\n");
    Ok(Measurement {
        // Letters in front: no reader of CSV takes one for a number.
        run_id: format!("f{}", &sha256[..12]),
        unit: format!("f{}", &sha256_of(of.as_bytes())[..16]),
        plugin: file.tool.to_owned(),
        plugin_sha256: sha256.to_owned(),
        architecture: MARK.to_owned(),
        options: format!("file={}", name.replace([',', '='], "_")),
        checkpoint: format!("{model} ({mark})"),
        task: score.task.clone(),
        task_options: mark,
        eval_length,
        metric: score.metric.clone(),
        samples: Some(samples),
        correct,
        value: Some(value),
        value_low: Some(low),
        value_high: Some(high),
        interval: interval.to_owned(),
        status: Status::Ok,
        ..Measurement::default()
    })
}

#[cfg(test)]
mod tests {
    use longhaul_results::Record;

    use super::*;

    fn audited(scores: Vec<Score>) -> Audited {
        Audited {
            path: "results/vt.jsonl".into(),
            tool: "RULER",
            what: String::new(),
            model: None,
            scores,
            findings: Vec::new(),
            untold: "",
        }
    }

    #[test]
    fn scores_of_items_are_rows_and_others_say_why_not() {
        let at = |length: Option<u64>, score: Score| Score { length, ..score };
        let share = at(
            Some(4096),
            Score::of("vt", "string_match_all", &[0.2, 1.0, 0.4]),
        );
        let right = at(
            Some(4096),
            Score::of("qa", "acc,none", &[1.0, 0.0, 1.0, 1.0]),
        );
        let scores = vec![
            share,
            right,
            at(None, Score::of("vt", "string_match_all", &[1.0])),
            at(Some(4096), Score::of("f", "f1,none", &[0.25, 0.5])),
            at(
                Some(4096),
                Score::stated("vt", "string_match_all", 0.5, Some(20)),
            ),
        ];
        let sha256 = "ab".repeat(32);
        let (rows, left_out) = rows(&audited(scores), &sha256);
        assert_eq!((rows.len(), left_out.len()), (2, 3), "{left_out:?}");
        for row in &rows {
            row.validate().expect("a row as any other");
            assert_eq!(
                (row.task_options.as_str(), row.plugin_sha256.as_str()),
                ("foreign=RULER", sha256.as_str())
            );
            assert_eq!(row.checkpoint, "vt.jsonl (foreign=RULER)");
        }
        assert_eq!(rows[0].correct, None);
        assert_eq!((rows[1].correct, rows[1].value), (Some(3), Some(0.75)));
        for (words, said) in ["how many tokens", "none that is known", "without its items"]
            .iter()
            .zip(&left_out)
        {
            assert!(said.contains(words), "{said}");
        }
    }
}
