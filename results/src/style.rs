//! Colour, marker and dashes of a curve. They belong to an architecture: neither the order of the curves
//! nor the other architectures of a run move them, unless two fall on one place.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::drawing::{Drawing, Place, Stroke};
use crate::summary::SummaryRow;

/// A unit of dashes and markers, in points.
const UNIT: f64 = 0.5;

/// Okabe and Ito's colours but for the yellow, and three of Tol's: the colour-blind tell them apart, and
/// all stand out from white.
const COLOURS: [&str; 10] = [
    "#009E73", "#0072B2", "#56B4E9", "#999933", "#000000", "#882255", "#CC79A7", "#332288",
    "#E69F00", "#D55E00",
];

/// Lengths of dashes and gaps, in half points.
const DASHES: [&str; 10] = [
    "none",
    "7 3",
    "2 2",
    "8 3 2 3",
    "12 3",
    "5 2 1 2 1 2",
    "4 4",
    "10 2 4 2",
    "1 3",
    "9 3 2 2 2 3",
];

/// Outlines of markers, around 0, 0 and some four half points wide to each side.
const MARKERS: [&str; 10] = [
    "M-4 0C-4 -2.21 -2.21 -4 0 -4C2.21 -4 4 -2.21 4 0C4 2.21 2.21 4 0 4C-2.21 4 -4 2.21 -4 0Z",
    "M-3.6 -3.6H3.6V3.6H-3.6Z",
    "M0 -4.8L4.5 3.4H-4.5Z",
    "M0 -5L5 0L0 5L-5 0Z",
    "M0 4.8L4.5 -3.4H-4.5Z",
    "M-1.5 -4.6H1.5V-1.5H4.6V1.5H1.5V4.6H-1.5V1.5H-4.6V-1.5H-1.5Z",
    "M-4.8 0L3.4 -4.5V4.5Z",
    "M0 -5.2L1.4 -1.6L5.2 -1.6L2.2 0.8L3.2 4.6L0 2.3L-3.2 4.6L-2.2 0.8L-5.2 -1.6L-1.4 -1.6Z",
    "M4.8 0L-3.4 -4.5V4.5Z",
    "M-4.8 -3L-3 -4.8L0 -1.8L3 -4.8L4.8 -3L1.8 0L4.8 3L3 4.8L0 1.8L-3 4.8L-4.8 3L-1.8 0Z",
];

/// Starts the hash so that the architectures of this repository have ten different places.
const SALT: u64 = 3620;

/// How a curve is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Style {
    pub colour: &'static str,
    pub dashes: &'static str,
    pub marker: &'static str,
}

impl Style {
    /// A curve's line.
    pub fn stroke(&self, width: f64) -> Stroke {
        let dashes = self.dashes.split(' ');
        let dashes = dashes.filter_map(|dash| dash.parse::<f64>().ok());
        let dashes: Vec<f64> = dashes.map(|dash| UNIT * dash).collect();
        Stroke::dashed(self.colour, width, &dashes)
    }

    /// A marker at a place.
    pub fn mark(&self, drawing: &mut Drawing, place: Place) {
        let edge = Stroke::whole("#ffffff", 0.7);
        drawing.outline(place, UNIT, self.marker, Some(self.colour), Some(edge));
    }

    /// The first ten places differ in all three; later ones have a colour again with another marker and
    /// other dashes.
    fn new(place: usize) -> Self {
        let (colour, other) = (place % 10, (place + place / 10 * 3) % 10);
        Self {
            colour: COLOURS[colour],
            dashes: DASHES[other],
            marker: MARKERS[other],
        }
    }
}

/// What has a style of its own.
type Drawn<'a> = (&'a str, &'a str, &'a str, &'a str);

fn drawn(row: &SummaryRow) -> Drawn<'_> {
    (
        &row.architecture,
        &row.options,
        &row.plugin,
        &row.checkpoint,
    )
}

/// Places of everything that is drawn in a run.
pub(crate) struct Styles<'a> {
    places: HashMap<Drawn<'a>, usize>,
}

impl<'a> Styles<'a> {
    /// Of all plots of a summary.
    pub fn new(summary: &'a [SummaryRow]) -> Self {
        let all: BTreeSet<Drawn<'a>> = summary.iter().map(drawn).collect();
        let mut variants: BTreeMap<&str, Vec<Drawn<'a>>> = BTreeMap::new();
        for drawn in all {
            variants.entry(drawn.0).or_default().push(drawn);
        }
        // An architecture's first variant takes its own place before any has a second.
        let first = variants.values().filter_map(|variants| variants.first());
        let others = variants.values().flat_map(|variants| &variants[1..]);
        let (mut places, mut taken) = (HashMap::new(), BTreeSet::new());
        for &drawn in first.chain(others) {
            places.insert(drawn, take(own_place(drawn.0), &mut taken));
        }
        Self { places }
    }

    /// The styles of the curves of one plot, all different up to a hundred in a run. Of several curves of
    /// one model the first has the model's place.
    pub fn of(&self, curves: &[&SummaryRow]) -> Vec<Style> {
        let mut taken: BTreeSet<usize> = self.places.values().copied().collect();
        let mut first = BTreeSet::new();
        let places = curves.iter().map(|row| {
            let own = self.places.get(&drawn(row)).copied().unwrap_or(0);
            if first.insert(own) {
                own
            } else {
                take(own, &mut taken)
            }
        });
        places.map(Style::new).collect()
    }
}

/// The wanted place, or the nearest after it that is free: of the same ten, then of the next.
fn take(wanted: usize, taken: &mut BTreeSet<usize>) -> usize {
    let (ten, start) = (wanted / 10, wanted % 10);
    let places = (ten..).flat_map(|ten| (0..10).map(move |step| 10 * ten + (start + step) % 10));
    let free = places.into_iter().find(|place| !taken.contains(place));
    let place = free.expect("there are more places than curves");
    taken.insert(place);
    place
}

/// An architecture's own place (FNV-1a).
fn own_place(architecture: &str) -> usize {
    let mut hash = 0xcbf2_9ce4_8422_2325 ^ SALT;
    for byte in architecture.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    ((hash >> 32) % 10) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(architecture: &str, options: &str) -> SummaryRow {
        SummaryRow {
            architecture: architecture.to_owned(),
            options: options.to_owned(),
            ..SummaryRow::default()
        }
    }

    #[test]
    fn styles_belong_to_architectures() {
        let names = [
            "griffin",
            "hawk",
            "hybrid",
            "lstm",
            "mamba",
            "mamba2",
            "rwkv4",
            "rwkv6",
            "rwkv7",
            "transformer",
        ];
        let mut rows: Vec<SummaryRow> = names.iter().map(|name| row(name, "")).collect();
        let together = Styles::new(&rows).of(&rows.iter().collect::<Vec<_>>());
        for (place, row) in rows.iter().enumerate() {
            let alone = Styles::new(std::slice::from_ref(row)).of(&[row]);
            assert_eq!(alone, together[place..=place], "{}", row.architecture);
        }
        rows.reverse();
        let mut reversed = Styles::new(&rows).of(&rows.iter().collect::<Vec<_>>());
        reversed.reverse();
        assert_eq!(reversed, together);
    }

    #[test]
    fn no_two_curves_of_a_plot_look_alike() {
        let mut rows: Vec<SummaryRow> = (0..80)
            .map(|hidden| row("lstm", &format!("hidden={hidden}")))
            .collect();
        // The same model twice, as with two weight decays.
        rows.push(row("lstm", "hidden=0"));
        rows.push(row("mamba", ""));
        let styles = Styles::new(&rows).of(&rows.iter().collect::<Vec<_>>());
        for (place, style) in styles.iter().enumerate() {
            assert!(!styles[..place].contains(style), "{place}: {style:?}");
        }
        let mamba = Styles::new(&rows[81..]).of(&[&rows[81]]);
        assert_eq!(mamba[..], styles[81..], "variants of another take no place");
    }
}
