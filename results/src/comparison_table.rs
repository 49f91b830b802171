//! A comparison of two models for a terminal.

use crate::comparison::{Compared, Comparison};
use crate::metric::Kind;
use crate::text::{printable, short_length, wrap_characters};

/// Tables of what was found, `width` columns at most, then what the columns mean and what is not in them.
pub fn render_comparison(found: &Compared, width: usize) -> String {
    let mut text = String::new();
    let title = |row: &Comparison| (row.task.clone(), row.task_options.clone());
    for rows in found.rows.chunk_by(|one, other| title(one) == title(other)) {
        let first = &rows[0];
        let options = first.task_options.replace(',', ", ");
        paragraph(&format!("{} ({options})", first.task), "", width, &mut text);
        let unit = if Kind::of(&first.metric).is_accuracy() {
            " in %"
        } else {
            ", less is better"
        };
        let head = format!(
            "A {}, B {}; {}{unit}; {}",
            first.one,
            first.other,
            first.metric.replace('_', " "),
            counts(rows)
        );
        paragraph(&head, "  ", width, &mut text);
        text.push_str(&line(
            ["", "A", "B", "A - B", "p", "Holm", "shows"].map(str::to_owned),
        ));
        for row in rows {
            text.push_str(&values(row));
            text.push_str(&intervals(row));
        }
        text.push('\n');
    }
    for note in legend(&found.rows).iter().chain(&found.notes) {
        paragraph(note, "", width, &mut text);
    }
    printable(&text)
}

/// How many seeds and examples the rows are of.
fn counts(rows: &[Comparison]) -> String {
    let seeds = |row: &Comparison| row.seeds;
    let (least, most) = (rows.iter().map(seeds).min(), rows.iter().map(seeds).max());
    let seeds = match (least.unwrap_or(0), most.unwrap_or(0)) {
        (1, 1) => "1 seed".to_owned(),
        (least, most) if least == most => format!("{most} seeds"),
        (least, most) => format!("{least} to {most} seeds"),
    };
    match rows.iter().find_map(|row| row.examples) {
        Some(examples) => format!("{seeds} of {examples} examples"),
        None => seeds,
    }
}

/// A line of a table, its cells flush right.
fn line(cells: [String; 7]) -> String {
    const WIDTHS: [usize; 7] = [7, 14, 14, 16, 9, 9, 8];
    let padded = cells.iter().zip(WIDTHS);
    let line: String = padded
        .map(|(cell, width)| format!("{cell:>width$}"))
        .collect();
    format!("{}\n", line.trim_end())
}

fn values(row: &Comparison) -> String {
    let kind = Kind::of(&row.metric);
    let show = |value: Option<f64>| value.map_or_else(String::new, |value| kind.show(value));
    let mark = if row.differs() { "* " } else { "" };
    let difference = row.difference.map_or_else(String::new, |value| {
        let sign = if value > 0.0 { "+" } else { "" };
        format!("{mark}{sign}{}", kind.show(value))
    });
    line([
        short_length(row.eval_length),
        show(row.one_value),
        show(row.other_value),
        difference,
        row.p_value.map_or_else(String::new, probability),
        row.p_holm.map_or_else(String::new, probability),
        show(row.detectable),
    ])
}

fn intervals(row: &Comparison) -> String {
    let kind = Kind::of(&row.metric);
    let end = |value: f64| {
        let text = kind.show(value);
        text.strip_suffix(".0").unwrap_or(&text).to_owned()
    };
    let show = |low: Option<f64>, high: Option<f64>| {
        let ends = low.zip(high);
        ends.map_or_else(String::new, |(low, high)| {
            format!("[{}, {}]", end(low), end(high))
        })
    };
    let empty = String::new;
    line([
        empty(),
        show(row.one_low, row.one_high),
        show(row.other_low, row.other_high),
        show(row.difference_low, row.difference_high),
        empty(),
        empty(),
        empty(),
    ])
}

/// A probability in at most seven characters.
fn probability(p_value: f64) -> String {
    if p_value >= 0.001 {
        format!("{p_value:.3}")
    } else {
        format!("{p_value:.0e}")
    }
}

/// What the columns mean.
fn legend(rows: &[Comparison]) -> Vec<String> {
    let tested = rows.iter().filter(|row| row.p_value.is_some()).count();
    let mut legend = vec!["In brackets 95 % intervals.".to_owned()];
    if tested == 0 {
        return legend;
    }
    let several = rows.iter().any(|row| row.seeds > 1);
    legend[0].push_str(if several {
        " That of A - B is over seeds and examples together."
    } else {
        " That of A - B is over the examples."
    });
    let tests: Vec<&str> = [
        ("mcnemar", "McNemar's exact test"),
        ("sign-flip", "the sign-flip test"),
    ]
    .into_iter()
    .filter(|(test, _)| rows.iter().any(|row| row.test == *test))
    .map(|(_, words)| words)
    .collect();
    legend.push(format!(
        "p: {} on these models' examples. Holm: p corrected over the {tested} lengths shown. *: Holm's p is below \
         0.05 and the interval without 0. shows: the least difference that this many examples and seeds show in 80 of \
         100 tries.",
        tests.join(" or ")
    ));
    if !several {
        legend
            .push("One seed: this compares two trained models, not two architectures.".to_owned());
    }
    legend
}

/// Words in lines of at most `width` characters, all indented.
fn paragraph(words: &str, indent: &str, width: usize, text: &mut String) {
    for line in wrap_characters(words, width.saturating_sub(indent.len())) {
        text.push_str(&format!("{indent}{}\n", line.trim_end()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(length: u64, difference: f64, p_holm: f64) -> Comparison {
        Comparison {
            task: "needle".to_owned(),
            task_options: "depth=grid,version=3".to_owned(),
            eval_length: length,
            metric: "exact_match".to_owned(),
            one: "mamba2".to_owned(),
            other: "transformer".to_owned(),
            seeds: 1,
            examples: Some(256),
            one_value: Some(0.9),
            one_low: Some(0.857),
            one_high: Some(0.931),
            other_value: Some(0.9 - difference),
            other_low: Some(0.8),
            other_high: Some(1.0),
            difference: Some(difference),
            difference_low: Some(difference - 0.05),
            difference_high: Some(difference + 0.05),
            interval: "paired".to_owned(),
            test: "mcnemar".to_owned(),
            p_value: Some(p_holm / 2.0),
            p_holm: Some(p_holm),
            detectable: Some(0.041),
            ..Comparison::default()
        }
    }

    #[test]
    fn a_comparison_reads_at_eighty_columns() {
        let found = Compared {
            rows: vec![row(128, 0.1, 2e-9), row(16384, -0.012, 0.4)],
            notes: vec!["mqar is left out: its seeds differ".to_owned()],
        };
        let text = render_comparison(&found, 80);
        for words in [
            "needle (depth=grid, version=3)",
            "A mamba2, B transformer; exact match in %; 1 seed of 256 examples",
            "* +10.0     1e-9     2e-9",
            "[5, 15]",
            "    16K",
            "-1.2    0.200    0.400     4.1",
            "[85.7, 93.1]",
            "One seed",
            "mqar is left out",
        ] {
            assert!(text.contains(words), "{words}\n{text}");
        }
        assert!(
            text.lines().all(|line| line.chars().count() <= 80),
            "{text}"
        );
    }
}
