//! A report as one page that needs nothing beside it: markup, style, script and chart library as they stand in
//! their files here, and the data as JSON. The script decides order and layout; every number, and every text that
//! says one, is made here from the same view as in the other outputs.

mod column;
mod data;

use std::borrow::Cow;
use std::io::{self, Write};
use std::path::Path;

use serde::Serialize;
use serde_json::ser::{CharEscape, Formatter};

use crate::heat::by_depth;
use crate::plot::by_position;
use crate::provenance::{Provenance, RunRecord};
use crate::record::Measurement;
use crate::summary::SummaryRow;
use crate::text::printable;

const PAGE: &str = include_str!("page.html");

/// The page's own scripts, each of which may use those before it.
const SCRIPTS: [&str; 5] = [
    include_str!("script/data.js"),
    include_str!("script/table.js"),
    include_str!("script/tasks.js"),
    include_str!("script/figure.js"),
    include_str!("script/page.js"),
];

/// A report's page. `origins` has for each row the place of its run among those of `provenance`.
pub fn html_page(
    rows: &[Measurement],
    origins: &[usize],
    summary: &[SummaryRow],
    provenance: &Provenance,
) -> String {
    let mut json = Vec::new();
    let mut serializer = serde_json::Serializer::with_formatter(&mut json, InPage);
    let positions = by_position(summary);
    let (depths, sources): (Vec<_>, Vec<_>) = by_depth(summary).into_iter().unzip();
    let breakdowns = data::Breakdowns {
        positions: &positions,
        depths: &depths,
        sources: &sources,
    };
    let data = data::Data::new(rows, origins, summary, breakdowns, provenance);
    data.serialize(&mut serializer)
        .expect("plain data serialises");
    let json = String::from_utf8(json).expect("JSON is text");
    let title = title(provenance);
    // Between the marks stand names of parts; what takes their place is not looked through again.
    let part = |(place, text): (usize, &'static str)| match (place % 2, text) {
        (0, markup) => markup.to_owned(),
        (_, "title") => title.clone(),
        (_, "style") => include_str!("page.css").to_owned(),
        (_, "script") => SCRIPTS.concat(),
        (_, "chart style") => include_str!("uplot/uPlot.min.css").to_owned(),
        (_, "chart script") => include_str!("uplot/uPlot.iife.min.js").to_owned(),
        (_, "chart licence") => include_str!("uplot/LICENSE").to_owned(),
        (_, "data") => json.clone(),
        (_, other) => unreachable!("page.html names no part {other}"),
    };
    PAGE.split("@@").enumerate().map(part).collect()
}

/// The page's title, by which its tab is found among others: the names of the runs' folders, as markup.
fn title(provenance: &Provenance) -> String {
    let name = |run: &RunRecord| {
        let folder = Path::new(&run.folder);
        let name = folder.file_name().map(|name| name.to_string_lossy());
        name.map_or_else(|| run.folder.clone(), Cow::into_owned)
    };
    let names: Vec<String> = provenance.runs.iter().map(name).collect();
    let text = match names.as_slice() {
        [] => "Longhaul report".to_owned(),
        [first, second, third, _, ..] => format!(
            "{first}, {second}, {third} and {} more: Longhaul report",
            names.len() - 3
        ),
        names => format!("{}: Longhaul report", names.join(", ")),
    };
    printable(&text).replace('&', "&amp;").replace('<', "&lt;")
}

/// JSON within a page: nothing in it ends its element, and no character of it acts on what shows it.
struct InPage;

impl Formatter for InPage {
    fn write_string_fragment<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        writer.write_all(printable(fragment).replace('<', "\\u003c").as_bytes())
    }

    fn write_char_escape<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        escape: CharEscape,
    ) -> io::Result<()> {
        writer.write_all(match escape {
            CharEscape::Quote => b"\\\"",
            CharEscape::ReverseSolidus => b"\\\\",
            CharEscape::Solidus => b"/",
            CharEscape::LineFeed => b"\\n",
            _ => "\u{fffd}".as_bytes(),
        })
    }
}
