//! Tables for documents: what they say, and that names of any kind appear as text.

mod fixture;

use fixture::{failed, row};
use longhaul_results::{
    Measurement, Provenance, RunRecord, Status, html_page, latex_document, latex_tables,
    markdown_tables, summarise,
};

/// Names that Markdown, HTML and LaTeX would take for something else.
const HOSTILE: &str = "a_b*c*<script>&amp;\\end{table}%$x$#~^|`\"[l](u)\u{1b}[31m\n\u{4e2d}";

/// Two architectures that are told apart at 128 and not at 64, a third that crashed.
fn rows() -> Vec<Measurement> {
    vec![
        row("good", 0, 64, 99),
        row("good", 0, 128, 99),
        row("bad", 0, 64, 95),
        row("bad", 0, 128, 50),
        failed("gone", 64, Status::Crashed),
    ]
}

fn latex(rows: &[Measurement]) -> String {
    let [(name, text)] = &latex_tables(&summarise(rows))[..] else {
        panic!("one task, one table");
    };
    assert_eq!(name, "mqar.tex");
    text.clone()
}

#[test]
fn what_is_not_told_apart_from_the_best_is_bold() {
    let markdown = markdown_tables(&summarise(&rows()));
    for line in [
        "| good | **99.0** \\[94.6, 99.8\\] | **99.0** \\[94.6, 99.8\\] | 100 | 128 |",
        "| bad | **95.0** \\[88.8, 97.8\\] | 50.0 \\[40.4, 59.6\\] | 36 | 64 |",
        "| gone | crash |  | - | - |",
    ] {
        let line = line.replace("| 128 |", "| ≥ 128 |");
        assert!(markdown.contains(&line), "no {line} in\n{markdown}");
    }
    let latex = latex(&rows());
    for line in [
        "good & \\textbf{99.0} & \\textbf{99.0} & 100 & $\\geq$ 128 \\\\",
        "bad & \\textbf{95.0} & 50.0 & 36 & 64 \\\\",
        "gone & crash &  & - & - \\\\",
    ] {
        assert!(latex.contains(line), "no {line} in\n{latex}");
    }
    // Alone there is nothing to be better than, and a loss is better where it is less.
    let alone = markdown_tables(&summarise(&rows()[..2]));
    assert!(!alone.contains("**"), "{alone}");
    let loss = |architecture: &str, value: f64| Measurement {
        metric: "bits_per_byte".into(),
        correct: None,
        value: Some(value),
        value_sd: Some(0.1),
        chance: None,
        ..row(architecture, 0, 64, 0)
    };
    let losses = markdown_tables(&summarise(&[loss("less", 1.0), loss("more", 2.0)]));
    assert!(losses.contains("| less | **1.000**"), "{losses}");
    assert!(losses.contains("| more | 2.000"), "{losses}");
}

/// A report's page of one run, and the data in it.
fn page(rows: &[Measurement]) -> (String, serde_json::Value) {
    let provenance = Provenance {
        notes: vec![HOSTILE.to_owned()],
        runs: vec![RunRecord::default()],
        ..Provenance::default()
    };
    let page = html_page(rows, &vec![0; rows.len()], &summarise(rows), &provenance);
    let data = page.split("id=\"data\">").nth(1).expect("the data");
    let data = data.split("</script>").next().expect("its end");
    let data = serde_json::from_str(data).expect("JSON");
    (page, data)
}

#[test]
fn a_page_holds_the_table_its_points_and_their_rows() {
    let (page, data) = page(&rows());
    assert_eq!(page, self::page(&rows()).0, "the same bytes each time");
    assert!(page.len() < 150_000, "{} bytes", page.len());
    let task = &data["tasks"][0];
    assert_eq!(task["lengths"], serde_json::json!([64, 128]));
    assert_eq!(task["chance"], serde_json::json!([[64, 0.25]]));
    assert_eq!(
        task["curves"][1]["points"],
        serde_json::json!({"start": 2, "end": 4})
    );
    let column = |table: &str, name: &str| data[table][name].clone();
    let values = column("points", "value");
    assert_eq!(
        values["values"],
        serde_json::json!(["99.0", "99.0", "95.0", "50.0", null])
    );
    let points = column("records", "point");
    assert_eq!(points["values"], serde_json::json!([0, 1, 2, 3, 4]));
    assert_eq!(data["cells"], 5);
    assert!(
        page.contains("Permission is hereby granted"),
        "the chart library's licence"
    );
    assert!(!page.contains("@@"), "a part that was not put in");
}

#[test]
fn names_of_any_kind_appear_as_text() {
    let mut rows = rows();
    for row in &mut rows[..2] {
        row.architecture = HOSTILE.into();
    }
    let summary = summarise(&rows);
    let markdown = markdown_tables(&summary);
    let name = "a\\_b\\*c\\*&lt;script&gt;&amp;amp;\\\\end{table}%\\$x\\$\\#\\~^\\|\\`\"\\[l\\](u)\u{fffd}\\[31m \u{4e2d}";
    assert!(markdown.contains(name), "no {name} in\n{markdown}");
    let latex = latex(&rows);
    let name = "a\\_b*c*\\textless{}script\\textgreater{}\\&amp;\\textbackslash{}end\\{table\\}\\%\\$x\\$\\#\
                \\textasciitilde{}\\textasciicircum{}\\textbar{}\\textasciigrave{}\\textquotedbl{}[l](u)[U+FFFD][31m [U+4E2D]";
    assert!(latex.contains(name), "no {name} in\n{latex}");
    assert_eq!(latex.matches("\\end{table*}").count(), 1);
    let (page, data) = page(&rows);
    let name = HOSTILE.replace('\u{1b}', "\u{fffd}");
    assert_eq!(data["tasks"][0]["curves"][0]["name"], name);
    assert_eq!(data["provenance"]["notes"][0], name);
    assert_eq!(
        page.matches("<script").count(),
        3,
        "none but the page's own"
    );
}

#[test]
fn many_lengths_stand_in_blocks_under_each_other() {
    let rows: Vec<Measurement> = (0..20).map(|place| row("m", 0, 64 + place, 50)).collect();
    let latex = latex(&rows);
    assert_eq!(latex.matches("\\begin{tabular}").count(), 3, "{latex}");
    for line in latex.lines().filter(|line| line.starts_with("m & ")) {
        assert!(line.matches('&').count() <= 9, "{line}");
    }
    let document = latex_document(["tables/mqar.tex"]);
    assert!(document.contains("\\input{tables/mqar.tex}\n\\end{document}"));
}
