//! Tables as LaTeX with booktabs, a file a task for `\input`, and a document that shows them all. Names of any kind
//! appear as they are.

use std::fmt::Write;

use crate::names::of_tasks;
use crate::sheet::{Sheet, SheetCell, SheetRow};
use crate::summary::SummaryRow;
use crate::text::printable;
use crate::view::tasks;

/// Most lengths side by side, so that a table is no wider than a page of text.
const ACROSS: usize = 8;

/// A table for each task of a summary, in its order: the name of its file, and the text.
pub fn latex_tables(summary: &[SummaryRow]) -> Vec<(String, String)> {
    let tasks = tasks(summary);
    let names = of_tasks(&tasks).into_iter();
    names
        .zip(&tasks)
        .map(|(name, task)| (format!("{name}.tex"), table(&Sheet::new(task))))
        .collect()
}

/// A document that inputs these files, by their paths from where it is compiled.
pub fn latex_document<'a>(files: impl IntoIterator<Item = &'a str>) -> String {
    let inputs: String = files
        .into_iter()
        .map(|file| format!("\\input{{{file}}}\n"))
        .collect();
    format!(
        "\\documentclass{{article}}\n\\usepackage[T1]{{fontenc}}\n\\usepackage[utf8]{{inputenc}}\n\
         \\usepackage{{booktabs,graphicx}}\n\\usepackage[margin=2cm]{{geometry}}\n\\begin{{document}}\n\
         {inputs}\\end{{document}}\n"
    )
}

fn table(sheet: &Sheet<'_>) -> String {
    let mut text = String::from(
        "% Needs \\usepackage{booktabs,graphicx}. In a text of two columns it takes both.\n\\begin{table*}[htbp]\n\\centering\n\\small\n\\setlength{\\tabcolsep}{4pt}\n\
         \\setlength{\\belowcaptionskip}{4pt}\n",
    );
    let title = match sheet.options.as_str() {
        "" => sheet.task.to_owned(),
        options => format!("{} ({})", sheet.task, options.replace(',', ", ")),
    };
    let caption: Vec<String> = sheet.caption.iter().map(|line| escape(line)).collect();
    let _ = writeln!(
        text,
        "\\caption{{\\textbf{{{}}}. {}}}",
        escape(&title),
        caption.join(" ")
    );
    let places: Vec<usize> = (0..sheet.lengths.len()).collect();
    let blocks: Vec<&[usize]> = places.chunks(ACROSS).collect();
    for (place, lengths) in blocks.iter().enumerate() {
        block(sheet, lengths, place + 1 == blocks.len(), &mut text);
    }
    for note in &sheet.notes {
        let _ = writeln!(text, "\\par\\footnotesize {}", escape(note));
    }
    text.push_str("\\end{table*}\n");
    text
}

/// The table at some of the lengths; the last block also says how far each model carries. Where it is wider than the
/// text it is set smaller.
fn block(sheet: &Sheet<'_>, lengths: &[usize], last: bool, text: &mut String) {
    let ends = if last { &sheet.ends[..] } else { &[] };
    let _ = writeln!(
        text,
        "\\sbox0{{%\n\\begin{{tabular}}{{l{}{}}}\n\\toprule",
        "r".repeat(lengths.len()),
        "r".repeat(ends.len())
    );
    let heads = lengths.iter().map(|&place| escape(&sheet.lengths[place]));
    let heads: Vec<String> = heads
        .chain(ends.iter().map(|&end| end.to_owned()))
        .collect();
    let _ = writeln!(text, " & {} \\\\\n\\midrule", heads.join(" & "));
    for row in &sheet.rows {
        lines(row, lengths, ends.len(), text);
    }
    text.push_str(
        "\\bottomrule\n\\end{tabular}}\n\
         \\ifdim\\wd0>\\linewidth\\resizebox{\\linewidth}{!}{\\usebox0}\\else\\usebox0\\fi\\par\n",
    );
}

/// A row of values, and one of intervals below it.
fn lines(row: &SheetRow, lengths: &[usize], ends: usize, text: &mut String) {
    let cells: Vec<&SheetCell> = lengths.iter().map(|&place| &row.cells[place]).collect();
    let value = |cell: &&SheetCell| match cell.best {
        true => format!("\\textbf{{{}}}", escape(&cell.value)),
        false => escape(&cell.value),
    };
    let mut values: Vec<String> = cells.iter().map(value).collect();
    values.extend(row.ends.iter().take(ends).map(|end| escape(end)));
    let name = escape(&row.name);
    // A bracket or a star would belong to the command before.
    let guard = if name.starts_with(['[', '*']) {
        "{}"
    } else {
        ""
    };
    let _ = writeln!(text, "{guard}{name} & {} \\\\", values.join(" & "));
    if cells.iter().any(|cell| !cell.interval.is_empty()) {
        // Braces, as a bracket after \\ would be its argument.
        let small = |cell: &&SheetCell| format!("{{\\scriptsize {}}}", escape(&cell.interval));
        let small: Vec<String> = cells.iter().map(small).collect();
        let ends = " &".repeat(ends);
        let _ = writeln!(text, " & {}{ends} \\\\", small.join(" & "));
    }
}

/// Text that LaTeX takes as text, on one line.
fn escape(text: &str) -> String {
    let mut escaped = String::new();
    let mut before = ' ';
    for c in printable(text).chars() {
        // Two of these would become one other sign.
        if c == before && matches!(c, '-' | ',') {
            escaped.push_str("{}");
        }
        before = c;
        match c {
            '\n' => escaped.push(' '),
            '\\' => escaped.push_str("\\textbackslash{}"),
            '~' => escaped.push_str("\\textasciitilde{}"),
            '^' => escaped.push_str("\\textasciicircum{}"),
            '<' => escaped.push_str("\\textless{}"),
            '>' => escaped.push_str("\\textgreater{}"),
            '|' => escaped.push_str("\\textbar{}"),
            '"' => escaped.push_str("\\textquotedbl{}"),
            '\'' => escaped.push_str("\\textquotesingle{}"),
            '`' => escaped.push_str("\\textasciigrave{}"),
            '&' | '%' | '$' | '#' | '_' | '{' | '}' => escaped.extend(['\\', c]),
            '≥' => escaped.push_str("$\\geq$"),
            // What pdflatex knows without more packages.
            '\0'..='\u{17f}' => escaped.push(c),
            _ => _ = write!(escaped, "[U+{:04X}]", u32::from(c)),
        }
    }
    escaped
}
