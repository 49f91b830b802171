//! Tables and plots: what they say, that nothing runs into anything, and that names of any kind are safe.

mod fixture;

use fixture::{failed, row};
use std::collections::BTreeMap;

use longhaul_results::{
    Measurement, Split, Status, TrainingPoint, figures, plot_all, plots, render_tables, summarise,
};

const LENGTHS: [u64; 6] = [64, 128, 256, 512, 1024, 16384];

/// Four architectures at six lengths, and one that crashed, which comes first.
fn sample_rows() -> Vec<Measurement> {
    let mut rows = vec![failed("hybrid", 64, Status::Crashed)];
    for (index, name) in ["transformer", "mamba2", "mamba", "lstm"]
        .iter()
        .enumerate()
    {
        for (step, length) in LENGTHS.into_iter().enumerate() {
            rows.push(row(name, 0, length, 100 - (index * step * 5) as u64));
        }
    }
    rows
}

fn table(rows: &[Measurement]) -> String {
    render_tables(&summarise(rows), 80)
}

/// A table as one line of words.
fn words(rows: &[Measurement]) -> String {
    table(rows).split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn a_step_in_the_samples_is_marked() {
    let mut rows = sample_rows();
    let labelled = |label: fn(u64) -> &'static str| {
        LENGTHS.map(|length| Measurement {
            label: label(length).into(),
            ..row("lstm", 0, length, 50)
        })
    };
    rows.extend(labelled(|length| {
        if length < 512 {
            "repeats=6"
        } else {
            "repeats=30"
        }
    }));
    // Both at each length, the same everywhere, or not everywhere: none of these is a step.
    rows.extend(labelled(|_| "depth=0.00"));
    rows.extend(labelled(|_| "depth=1.00"));
    rows.extend(
        labelled(|length| if length < 512 { "" } else { "answer=empty" })
            .into_iter()
            .skip(3),
    );
    let text = words(&rows);
    let step = "From 512 on the samples are others, not only longer: repeats=30, before repeats=6.";
    assert!(text.contains(step), "{text}");
    assert_eq!(text.matches("not only longer").count(), 1, "{text}");
    assert!(!words(&sample_rows()).contains("not only longer"));
}

#[test]
fn tables_fit_in_eighty_columns_and_say_how_cells_ended() {
    let mut rows = sample_rows();
    let long = "an-architecture-with-quite-a-long-name-that-goes-on-and-on";
    for row in &mut rows {
        row.task_options =
            "a_long_option=4,another_long_option=varied,pairs=4,power_a=0.01,vocab=8192".into();
        if row.architecture == "mamba" {
            row.architecture = long.into();
        }
    }
    let text = table(&rows);
    assert!(
        text.lines().all(|line| line.chars().count() <= 80),
        "{text}"
    );
    for words in [
        "crash",
        "16K",
        long,
        "[96.3, 100]",
        "100.0",
        "trained at 64, 10 steps",
    ] {
        assert!(text.contains(words), "no {words} in\n{text}");
    }
    // The first architecture failed, and chance is there all the same.
    assert!(text.contains("chance 25.0 %"), "{text}");
    assert!(!text.contains('±'), "{text}");
}

#[test]
fn cells_stand_apart_whatever_they_hold() {
    for (samples, correct) in [(10, 10), (1, 0), (15, 15), (1_000_000, 999_999), (3, 1)] {
        for seeds in [1, 2, 3, 4] {
            let mut rows = Vec::new();
            for seed in 0..seeds {
                for length in [64, 100_003, 1_000_003, 999_983, 1_000_000_007] {
                    rows.push(Measurement {
                        samples: Some(samples),
                        correct: Some(correct),
                        value: Some(correct as f64 / samples as f64),
                        ..row("a", seed, length, 0)
                    });
                }
            }
            let text = table(&rows);
            let lines = text
                .lines()
                .filter(|line| line.starts_with("      ") || line.starts_with("  a "));
            let mut cells = [0, 0, 0];
            for word in lines
                .flat_map(str::split_whitespace)
                .filter(|&word| word != "a")
            {
                // A value or a length, the halves of an interval, seeds.
                let own = [
                    word.parse::<f64>().is_ok(),
                    word.contains(['[', ']']),
                    word.contains('/'),
                ];
                assert_eq!(
                    own.iter().filter(|&&is| is).count(),
                    1,
                    "`{word}` in\n{text}"
                );
                assert!(
                    word.matches(['[', ']']).count() < 2 && word.matches('.').count() < 2,
                    "{text}"
                );
                own.iter()
                    .zip(&mut cells)
                    .for_each(|(&is, count)| *count += usize::from(is));
            }
            assert_eq!(cells, [10, 10, if seeds > 1 { 5 } else { 0 }], "{text}");
        }
    }
}

#[test]
fn tables_say_what_was_learned_and_how_far_it_carries() {
    let mut rows = Vec::new();
    for (place, length) in [64, 128, 256].into_iter().enumerate() {
        rows.push(row("holds", 0, length, 100));
        rows.push(row("falls", 0, length, [100, 99, 30][place]));
        rows.push(row("guesses", 0, length, 27));
    }
    let text = words(&rows);
    for words in [
        "holds: learned; effective length >= 256",
        "falls: learned; effective length 128",
        "guesses: not learned",
        "one seed, so an anecdote and no comparison",
        "learning rate 0.001",
    ] {
        assert!(text.contains(words), "no {words} in\n{text}");
    }
}

#[test]
fn seeds_are_shown_and_counted() {
    let seeds = [100, 7, 9].map(|correct| row("a", correct, 64, correct));
    let text = words(&seeds);
    assert!(
        text.contains("mean of 3 seeds") && text.contains("7/9/100"),
        "{text}"
    );
    assert!(text.contains("a: 1 of 3 seeds learned"), "{text}");
    let many: Vec<Measurement> = [100, 7, 9, 50, 60].map(|n| row("a", n, 64, n)).into();
    let text = words(&many);
    assert!(
        text.contains("the worst, the median and the best seed"),
        "{text}"
    );
    assert!(text.contains("7/50/100"), "{text}");
    let mut lost = seeds.to_vec();
    lost[2] = Measurement {
        seed: 9,
        ..failed("a", 64, Status::Failed)
    };
    let text = words(&lost);
    assert!(
        text.contains("53.5*") && text.contains("* seeds that were not measured"),
        "{text}"
    );
}

#[test]
fn a_choice_of_learning_rates_is_said() {
    let mut rows = Vec::new();
    for (rate, correct) in [(0.001, 90), (0.003, 80)] {
        for split in [Split::Validation, Split::Test] {
            rows.push(Measurement {
                learning_rate: Some(rate),
                split,
                ..row("a", 0, 64, correct)
            });
        }
    }
    let text = words(&rows);
    assert!(
        text.contains("learning rate 0.001, the best of 2 on validation"),
        "{text}"
    );
    assert!(!text.contains("80.0"), "{text}");
    rows.retain(|row| row.split == Split::Test);
    let text = words(&rows);
    assert!(text.contains("No learning rate could be chosen"), "{text}");
    assert!(
        text.contains("a:lr=0.001") && text.contains("a:lr=0.003"),
        "{text}"
    );
}

#[test]
fn names_tell_models_apart_by_what_differs() {
    let of = |options: &str, decay: f64| Measurement {
        options: options.into(),
        weight_decay: Some(decay),
        ..row("lstm", 0, 64, 50)
    };
    let text = table(&[
        of("d_model=64,hidden=8", 0.1),
        of("d_model=64,hidden=16", 0.1),
    ]);
    assert!(
        text.contains("lstm:hidden=8 ") && text.contains("lstm:hidden=16 "),
        "{text}"
    );
    let text = table(&[of("after=3,d_model=64,fault=x", 0.1), of("d_model=64", 0.1)]);
    assert!(
        text.contains("lstm:after=3,fault=x") && text.contains("  lstm  "),
        "{text}"
    );
    let text = table(&[of("d_model=64", 0.0), of("d_model=64", 0.1)]);
    assert!(text.contains("lstm:weight decay=0 "), "{text}");
    assert!(text.contains("lstm:weight decay=0.1 "), "{text}");
    let checkpoint = |sha256: &str| Measurement {
        checkpoint: "checkpoint-1000".into(),
        checkpoint_sha256: sha256.into(),
        train_length: None,
        ..row("mamba", 0, 64, 50)
    };
    let text = table(&[checkpoint("0123456789"), checkpoint("abcdef0123")]);
    assert!(text.contains("checkpoint-1000:sha256=01234567\n"), "{text}");
    assert!(text.contains("checkpoint-1000:sha256=abcdef01\n"), "{text}");
    assert!(!text.contains("trained at"), "{text}");
}

#[test]
fn control_characters_reach_neither_terminal_nor_xml() {
    let mut rows = sample_rows();
    for row in &mut rows {
        row.task = "../../x\u{1b}]0;title\u{7}".into();
        row.task_options = "a=\0,b=<&>\"".into();
        row.architecture = format!("\u{1b}[31m{}\u{0}<script>", row.architecture);
    }
    let summary = summarise(&rows);
    let text = render_tables(&summary, 80);
    assert!(
        !text.contains(|c: char| c.is_control() && c != '\n'),
        "{text:?}"
    );
    let folder = tempfile::tempdir().expect("a folder");
    let files = plot_all(&summary, folder.path()).expect("plots");
    assert_eq!(files[0].parent(), Some(folder.path()), "{files:?}");
    let svg = std::fs::read_to_string(&files[0]).expect("a plot");
    roxmltree::Document::parse(&svg).expect("XML");
}

/// How wide a text is in the figures' font.
fn width(text: &str, size: f64) -> f64 {
    let font = include_bytes!("../src/font/arimo.ttf");
    let face = ttf_parser::Face::parse(font, 0).expect("a font");
    let glyph = |character| face.glyph_index(character).or(face.glyph_index('\u{fffd}'));
    let units = |character| face.glyph_hor_advance(glyph(character)?).map(f64::from);
    let units: f64 = text.chars().filter_map(units).sum();
    units * size / f64::from(face.units_per_em())
}

/// Words of a plot with their boxes: left, top, right, bottom.
fn boxes(svg: &str) -> Vec<(String, [f64; 4])> {
    let document = roxmltree::Document::parse(svg).expect("XML");
    let texts = document
        .descendants()
        .filter(|node| node.has_tag_name("text"));
    texts
        .filter(|node| node.attribute("transform").is_none())
        .map(|node| {
            let number = |name: &str| {
                node.attribute(name)
                    .map(|text| text.parse().expect("a number"))
            };
            let (x, y, size): (f64, f64, f64) = (
                number("x").expect("a place"),
                number("y").expect("a place"),
                number("font-size").unwrap_or(8.0),
            );
            let text = node.text().unwrap_or("").to_owned();
            let width = width(&text, size);
            let left = match node.attribute("text-anchor") {
                Some("middle") => x - width / 2.0,
                Some("end") => x - width,
                _ => x,
            };
            (text, [left, y - 0.75 * size, left + width, y + 0.2 * size])
        })
        .collect()
}

fn plot(rows: &[Measurement]) -> String {
    let mut plots = plots(&summarise(rows));
    assert_eq!(plots.len(), 1);
    plots.remove(0).1
}

/// Checks that no text lies on another or outside the figure.
fn assert_readable(svg: &str) {
    let document = roxmltree::Document::parse(svg).expect("XML");
    let size = |name: &str| -> f64 {
        let size = document.root_element().attribute(name);
        let points = size.and_then(|size| size.strip_suffix("pt"));
        points.expect("a size in points").parse().expect("a number")
    };
    let (width, height) = (size("width"), size("height"));
    let boxes = boxes(svg);
    for (place, (text, one)) in boxes.iter().enumerate() {
        assert!(one[0] >= 0.0 && one[1] >= 0.0, "`{text}` at {one:?}");
        assert!(one[2] <= width && one[3] <= height, "`{text}` at {one:?}");
        for (other_text, other) in &boxes[..place] {
            let apart = one[0] >= other[2]
                || other[0] >= one[2]
                || one[1] >= other[3]
                || other[1] >= one[3];
            assert!(apart, "`{text}` {one:?} on `{other_text}` {other:?}");
        }
    }
}

#[test]
fn texts_never_lie_on_each_other() {
    assert_readable(&plot(&sample_rows()));
    // Many models with long names, as curves and as rows.
    for models in [12, 24] {
        let mut rows = Vec::new();
        for hidden in 0..models {
            for length in LENGTHS {
                let mut row = row("lstm", 0, length, 100 - 2 * hidden);
                row.options = format!(
                    "d_model=64,hidden={hidden},{}layers=2",
                    "an_option=long,".repeat(5)
                );
                if hidden % 2 == 0 {
                    row.options = row.options.replace("an_option=long", "an_option=another");
                }
                rows.push(row);
            }
        }
        assert_readable(&plot(&rows));
    }
    // Dense lengths, several training lengths, a long task.
    let mut rows = Vec::new();
    for trained in [40, 41, 64, 2048] {
        for length in 1..60 {
            let mut row = row("a", 0, 1000 + 10 * length, 50);
            row.train_length = Some(trained);
            row.task = "a-task-with-a-name-that-does-not-want-to-end-".repeat(4);
            row.task_options = "an_option=that,is=long,".repeat(20);
            rows.push(row);
        }
    }
    assert_readable(&plot(&rows));
}

#[test]
fn every_curve_is_seen_where_all_are_right() {
    let names = [
        "griffin", "hawk", "hybrid", "lstm", "mamba", "mamba2", "rwkv4", "rwkv6", "rwkv7", "x",
    ];
    let rows: Vec<Measurement> = names
        .iter()
        .flat_map(|name| LENGTHS.map(|length| row(name, 0, length, 100)))
        .collect();
    let svg = plot(&rows);
    let document = roxmltree::Document::parse(&svg).expect("XML");
    let lines = document.descendants().filter(|node| {
        node.has_tag_name("polyline") && node.attribute("stroke-width") == Some("0.9")
    });
    let mut drawn: Vec<&str> = lines.filter_map(|node| node.attribute("points")).collect();
    let count = drawn.len();
    drawn.sort_unstable();
    drawn.dedup();
    // Each line and its sample in the legend.
    assert_eq!((count, drawn.len()), (20, 20));
    let markers = document
        .descendants()
        .filter(|node| node.has_tag_name("path"));
    let mut places: Vec<&str> = markers
        .filter_map(|node| node.attribute("transform"))
        .collect();
    let count = places.len();
    places.sort_unstable();
    places.dedup();
    assert_eq!(
        (count, places.len()),
        (70, 70),
        "markers stand side by side"
    );
}

/// Curves of so many could not be told apart.
#[test]
fn many_models_are_a_row_each_the_best_first() {
    let rows = |count: u64| -> Vec<Measurement> {
        let of = |model: u64| {
            let name = format!("m{model:02}");
            LENGTHS.map(|length| row(&name, 0, length, if length > 64 { 3 * model } else { 100 }))
        };
        (0..count).flat_map(of).collect()
    };
    let mut many = rows(30);
    // One seed did not learn it, another crashed where it was read longest.
    many[0].value = Some(0.2);
    many[0].correct = Some(20);
    let last = many.len() - 1;
    many[last] = failed("m29", 16384, Status::Crashed);
    let svg = plot(&many);
    assert_readable(&svg);
    let boxes = boxes(&svg);
    let at = |words: &str| {
        let found = boxes.iter().find(|(text, _)| text == words);
        let (_, place) = found.unwrap_or_else(|| panic!("{words} in {boxes:?}"));
        (place[0], place[1])
    };
    let mut places: Vec<((f64, f64), String)> = (1..29)
        .rev()
        .map(|model| format!("m{model:02}"))
        .map(|name| (at(&name), name))
        .collect();
    assert!(places.is_sorted_by(|one, other| {
        let (one, other) = (one.0, other.0);
        one.0 < other.0 || one.0 == other.0 && one.1 < other.1
    }));
    // Behind all that have a value.
    let (crashed, worst) = (at("m29"), at("m00, not learned"));
    places.push((worst, "m00".to_owned()));
    assert!(
        places.iter().all(|(place, _)| *place < crashed),
        "{places:?}"
    );
    let words: Vec<&str> = boxes.iter().map(|(text, _)| text.as_str()).collect();
    let words = words.join(" ");
    for part in ["the best at 16K first", "chance 25.0 %", "trained at 64"] {
        assert!(words.contains(part), "{part}: {words}");
    }
    assert!(plot(&rows(12)).contains("Bars:"));
    assert!(!plot(&rows(13)).contains("Bars:"));
}

#[test]
fn an_architecture_looks_the_same_in_every_plot_of_a_run() {
    let mut rows = sample_rows();
    let second: Vec<Measurement> = rows
        .iter()
        .rev()
        .map(|row| Measurement {
            task: "needle".into(),
            ..row.clone()
        })
        .collect();
    rows.extend(second);
    let plots = plots(&summarise(&rows));
    let sample = |svg: &str, name: &str| {
        let line = svg
            .lines()
            .position(|line| line.contains(&format!(">{name}")))
            .expect("a name");
        let lines: Vec<&str> = svg.lines().collect();
        let look = |text: &str, attribute: &str| {
            let from = text.find(attribute).expect("an attribute") + attribute.len();
            text[from..].split('"').next().expect("a value").to_owned()
        };
        // The line and its marker stand before the name.
        [
            look(lines[line - 2], "stroke=\""),
            look(lines[line - 1], " d=\""),
        ]
    };
    for name in ["transformer", "mamba2", "lstm", "hybrid"] {
        assert_eq!(sample(&plots[0].1, name), sample(&plots[1].1, name));
    }
    assert_ne!(sample(&plots[0].1, "mamba2"), sample(&plots[0].1, "lstm"));
}

#[test]
fn plots_are_whole_and_the_same_every_time() {
    let folder = tempfile::tempdir().expect("a folder");
    let summary = summarise(&sample_rows());
    let files = plot_all(&summary, folder.path()).expect("plots");
    assert_eq!(files, [folder.path().join("accuracy-mqar.svg")]);
    let text = std::fs::read_to_string(&files[0]).expect("a plot");
    assert_eq!(text, plot(&sample_rows()));
    for words in [
        "transformer, learned",
        "trained at 64",
        ">chance<",
        "25.0 %",
        "16K",
        "One seed",
    ] {
        assert!(text.contains(words), "no {words}");
    }
    assert!(
        text.contains("hybrid, learning rate") || text.contains("hybrid, crashed"),
        "{text}"
    );
    let failed = [failed("hybrid", 64, Status::Crashed)];
    assert!(
        plots(&summarise(&failed)).is_empty(),
        "nothing was measured"
    );
    plot_all(&summary, &folder.path().join("none")).expect_err("no folder");
}

#[test]
fn an_unknown_training_length_has_no_line() {
    let mut rows = sample_rows();
    for row in &mut rows {
        (row.train_length, row.train_steps, row.learning_rate) = (None, None, None);
    }
    let svg = plot(&rows);
    assert!(
        !svg.contains("trained at") && !svg.contains("Learning rate"),
        "{svg}"
    );
    assert!(!table(&rows).contains("trained at"));
    // One far from the measured lengths is said and does not squeeze them.
    for row in &mut rows {
        row.train_length = Some(1 << 30);
    }
    let far = plot(&rows);
    assert!(far.contains("Trained at 1024M"), "{far}");
    let lines = |svg: &str| svg.lines().filter(|line| line.contains("polyline")).count();
    assert_eq!(lines(&far), lines(&svg));
}

/// A model at three fixed depths and three lengths, with a cell that crashed, and another task at one depth.
fn depth_rows() -> Vec<Measurement> {
    let mut rows = Vec::new();
    for (place, depth) in ["1", "0", "0.5"].into_iter().enumerate() {
        for (step, length) in [64, 128, 256].into_iter().enumerate() {
            let mut cell = row("mamba2", 0, length, 100 - (20 * place * step) as u64);
            if (depth, length) == ("0.5", 256) {
                cell = failed("mamba2", length, Status::Crashed);
            }
            cell.task_options = format!("depth={depth},keys=1");
            rows.push(cell);
        }
    }
    rows.push(Measurement {
        task: "alone".to_owned(),
        task_options: "depth=0".to_owned(),
        ..row("mamba2", 0, 64, 50)
    });
    rows
}

#[test]
fn fixed_depths_have_a_map() {
    let plots = plots(&summarise(&depth_rows()));
    let maps: Vec<_> = plots
        .iter()
        .filter(|(name, _)| name.starts_with("depth-"))
        .collect();
    let [(name, svg)] = &maps[..] else {
        panic!("one map: {:?}", maps.iter().map(|map| &map.0));
    };
    assert_eq!(name, "depth-mqar.svg");
    assert_readable(svg);
    let words: Vec<String> = boxes(svg).into_iter().map(|(text, _)| text).collect();
    let words = words.join(" ");
    // Depths from the start to the end, whatever the order of the rows.
    assert!(
        words.ends_with("0 % 100 80 60 50 % 100 60 crash 100 % 100 100 100 64 128 256"),
        "{words}"
    );
    let fills = |value: &str| {
        let lines: Vec<&str> = svg.lines().collect();
        let place = lines
            .iter()
            .position(|line| line.contains(&format!(">{value}<")));
        lines[place.expect("a value") - 1].to_owned()
    };
    assert!(fills("100").contains("#08306b"), "{}", fills("100"));
    assert_ne!(fills("80"), fills("60"));
}

/// The values of a map's cells, row by row, in the place of the file with this name.
fn cells_of(plots: &[(String, String)], name: &str) -> String {
    let (_, svg) = plots.iter().find(|plot| plot.0 == name).expect(name);
    assert_readable(svg);
    let words: Vec<String> = boxes(svg).into_iter().map(|(text, _)| text).collect();
    let words = words.join(" ");
    let first = words.find("0 %").expect("depths");
    words[first..].to_owned()
}

#[test]
fn breakdowns_by_depth_have_a_map_each_task_and_part() {
    let at = |label: &str, correct: u64| {
        [(64, correct), (128, correct / 2)].map(|(length, correct)| Measurement {
            label: label.to_owned(),
            task_options: "depth=grid,pairs=4".to_owned(),
            ..row("mamba2", 0, length, correct)
        })
    };
    let mut rows = [row("mamba2", 0, 64, 90), row("mamba2", 0, 128, 50)].to_vec();
    for row in &mut rows {
        row.task_options = "depth=grid,pairs=4".to_owned();
    }
    rows.extend(at("depth=1.00", 80));
    rows.extend(at("depth=0.00", 100));
    let plain = plots(&summarise(&rows));
    assert_eq!(
        cells_of(&plain, "depth-mqar.svg"),
        "0 % 100 50 100 % 80 40 64 128"
    );
    rows.extend(at("niah_depth=0.00", 60));
    rows.extend(at("niah_depth=1.00", 20));
    rows.extend(at("depths=0.00", 20));
    let parts = plots(&summarise(&rows));
    let names: Vec<&str> = parts
        .iter()
        .map(|plot| plot.0.as_str())
        .filter(|name| name.starts_with("depth"))
        .collect();
    assert_eq!(
        names,
        ["depth-mqar-pairs-4.svg", "depth-mqar-part-niah-pairs-4.svg"]
    );
    assert_eq!(cells_of(&parts, names[1]), "0 % 60 30 100 % 20 10 64 128");
}

/// The same models on three tasks, of which they all solve one, with their trainings.
fn three_tasks() -> (Vec<Measurement>, Vec<TrainingPoint>) {
    let (mut rows, mut points) = (Vec::new(), Vec::new());
    for (place, task) in ["mqar", "needle", "induction"].into_iter().enumerate() {
        for (model, name) in ["transformer", "mamba2", "lstm"].into_iter().enumerate() {
            let unit = format!("u{task}{name}");
            for (step, length) in LENGTHS.into_iter().enumerate() {
                rows.push(Measurement {
                    task: task.to_owned(),
                    unit: unit.clone(),
                    state_bytes: Some(4096),
                    peak_memory_bytes: Some(90_000_000 + 1000 * length),
                    tokens_per_second: Some(1e4 / (model + 1) as f64),
                    ..row(name, 0, length, 100 - (3 * place * step * model) as u64)
                });
            }
            points.extend((0..40).map(|step| TrainingPoint {
                unit: unit.clone(),
                step: 25 * step,
                loss: Some(3.0 / (1 + step) as f64),
                ..TrainingPoint::default()
            }));
        }
    }
    (rows, points)
}

/// The figures of these, by their names.
fn drawn(rows: &[Measurement], points: &[TrainingPoint]) -> BTreeMap<String, Vec<u8>> {
    figures(rows, &summarise(rows), points)
        .into_iter()
        .collect()
}

#[test]
fn a_report_has_every_figure_as_svg_and_pdf_with_the_same_bytes_each_time() {
    let (rows, points) = three_tasks();
    let made = drawn(&rows, &points);
    let names: Vec<&str> = made
        .keys()
        .filter_map(|name| name.strip_suffix(".svg"))
        .collect();
    let grids = [
        "memory",
        "retention",
        "state",
        "throughput",
        "training",
        "values",
    ];
    let tasks = ["induction", "mqar", "needle"].map(|task| format!("accuracy-{task}"));
    let expected: Vec<String> = tasks
        .into_iter()
        .chain(grids.map(|name| format!("grid-{name}")))
        .collect();
    assert_eq!(names, expected);
    assert!(drawn(&rows, &points) == made);
    for name in names {
        let svg = std::str::from_utf8(&made[&format!("{name}.svg")]).expect("text");
        assert_readable(svg);
        // 84 and 174 mm, on paper as on the screen.
        let wide = if name.starts_with("grid") {
            "493.23"
        } else {
            "238.11"
        };
        assert!(svg.contains(&format!("width=\"{wide}pt\"")), "{name}");
        let pdf = &made[&format!("{name}.pdf")];
        assert!(pdf.starts_with(b"%PDF-"), "{name}");
        let text = String::from_utf8_lossy(pdf);
        assert!(text.contains(&format!("/MediaBox [0 0 {wide} ")), "{name}");
        assert!(
            text.contains("/FontFile2") && !text.contains("/CreationDate"),
            "{name}"
        );
    }
    // Of one task there is its own figure; nothing was recorded on the way, and state and speed are not known.
    let rows: Vec<Measurement> = LENGTHS.map(|length| row("lstm", 0, length, 90)).to_vec();
    let made = drawn(&rows, &[]);
    let names: Vec<&str> = made
        .keys()
        .filter_map(|name| name.strip_suffix(".svg"))
        .collect();
    assert_eq!(names, ["accuracy-mqar", "grid-retention"]);
}

#[test]
fn marks_of_a_grid_do_not_hide_each_other() {
    let (rows, points) = three_tasks();
    let made = drawn(&rows, &points);
    // The first task is solved by all at every length, and all have as much state.
    for (name, marks) in [
        ("values", 3 * 3 * 6),
        ("retention", 3 * 3 * 6),
        ("state", 3 * 3),
    ] {
        let svg = std::str::from_utf8(&made[&format!("grid-{name}.svg")]).expect("text");
        let marks_there = svg.lines().filter(|line| line.contains("scale(0.5)"));
        let mut places: Vec<&str> = marks_there
            .filter_map(|line| line.split(')').next())
            .collect();
        let count = places.len();
        places.sort_unstable();
        places.dedup();
        // With those of the legend.
        assert_eq!((count, places.len()), (marks + 3, marks + 3), "{name}");
    }
    let training = std::str::from_utf8(&made["grid-training.svg"]).expect("text");
    let curves = training
        .lines()
        .filter(|line| line.contains("polyline") && line.contains("\"0.9\""));
    assert_eq!(curves.count(), 3 * 3 + 3, "each training, and samples");
}

#[test]
fn a_grid_of_many_tasks_has_pages_and_says_what_names_say() {
    let mut rows = Vec::new();
    for task in 0..30 {
        for name in ["a<b>&\"c\u{1b}[31m", "\u{4e2d}\u{6587}"] {
            rows.push(Measurement {
                task: format!("t{task}"),
                ..row(name, 0, 64, 90)
            });
            rows.push(Measurement {
                task: format!("t{task}"),
                ..row(name, 0, 128, 80)
            });
        }
    }
    let made = drawn(&rows, &[]);
    for page in ["", "-2", "-3"] {
        let svg = std::str::from_utf8(&made[&format!("grid-values{page}.svg")]).expect("text");
        assert_readable(svg);
        assert!(svg.contains("a&lt;b&gt;&amp;&quot;c") && !svg.contains('\u{1b}'));
        assert!(svg.contains("\u{4e2d}\u{6587}"));
    }
    assert!(!made.contains_key("grid-values-4.svg"));
    // What has no value is said where its curve is missing.
    rows.push(Measurement {
        task: "t0".to_owned(),
        ..failed("hybrid", 64, Status::Crashed)
    });
    let made = drawn(&rows, &[]);
    let svg = std::str::from_utf8(&made["grid-values.svg"]).expect("text");
    assert!(svg.contains("Without a value: hybrid on t0 (crashed)."));
}
