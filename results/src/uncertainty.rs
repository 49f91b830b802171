//! What drawing seeds and samples once more says of a summary's curves: intervals of retention and of effective
//! lengths, and ranks. Of `results.csv` alone, as the whole summary is.

use rayon::prelude::*;

use crate::bootstrap::{self, Cells, ordinal_interval};
use crate::curve::{self, Effective, Floor, Point};
use crate::metric::Kind;
use crate::ranking::ranks;
use crate::record::{Measurement, Status};
use crate::setting::group;
use crate::summary::SummaryRow;

/// Replicates of a curve, which are balanced. A run may have a hundred thousand cells.
const REPLICATES: usize = 1000;

/// A curve drawn many times.
struct Drawn {
    /// Rows of the points that were measured of all seeds, ascending by length, and the means of each.
    points: Vec<(usize, Vec<f64>)>,
}

/// Fills in the intervals and ranks of the curves, which are places of rows. `points` holds the measurements of
/// each row.
pub(crate) fn describe(
    rows: &mut [SummaryRow],
    points: &[Vec<&Measurement>],
    curves: &[Vec<usize>],
) {
    for curves in group(curves, |curve| rows[curve[0]].compared()) {
        let seen: &[SummaryRow] = rows;
        let drawn = curves.par_iter().map(|curve| draw(seen, points, curve));
        let drawn: Vec<Drawn> = drawn.collect();
        for (drawn, curve) in drawn.iter().zip(&curves) {
            effective_lengths(rows, drawn, curve);
            retention(rows, drawn);
        }
        rank(rows, &drawn);
    }
}

/// Draws the seeds that were measured at the in-length point, or at the shortest length where there is none.
fn draw(rows: &[SummaryRow], points: &[Vec<&Measurement>], curve: &[usize]) -> Drawn {
    let inside =
        curve.partition_point(|&place| Some(rows[place].eval_length) <= rows[place].train_length);
    let measured = |place: usize| {
        let ok = points[place].iter().filter(|one| one.status == Status::Ok);
        let mut of_seeds: Vec<_> = ok
            .filter_map(|one| Some((one.seed, one.scores()?)))
            .collect();
        of_seeds.sort_by_key(|(seed, _)| *seed);
        of_seeds
    };
    let seeds: Vec<u64> = measured(curve[inside.saturating_sub(1)])
        .iter()
        .map(|(seed, _)| *seed)
        .collect();
    let mut cells: Cells = vec![Vec::new(); seeds.len()];
    let mut places = Vec::new();
    for &place in curve {
        let there = measured(place);
        let found: Option<Vec<_>> = seeds
            .iter()
            .map(|seed| {
                let found = there.binary_search_by_key(seed, |(other, _)| *other);
                found.ok().map(|found| there[found])
            })
            .collect();
        if let Some(found) = found.filter(|_| !seeds.is_empty()) {
            places.push(place);
            for (cells, (_, scores)) in cells.iter_mut().zip(found) {
                cells.push(scores);
            }
        }
    }
    let kind = Kind::of(&rows[curve[0]].metric);
    let means = bootstrap::curve(&cells, kind, REPLICATES);
    Drawn {
        points: places.into_iter().zip(means).collect(),
    }
}

/// The intervals of both effective lengths, of a curve that has learned.
fn effective_lengths(rows: &mut [SummaryRow], drawn: &Drawn, curve: &[usize]) {
    if rows[curve[0]].learned != Some(true) {
        return;
    }
    let train_length = rows[curve[0]].train_length;
    let mut points: Vec<Point> = curve
        .iter()
        .map(|&place| Point {
            length: rows[place].eval_length,
            scaled: None,
            above_chance: true,
        })
        .collect();
    let measured = drawn.points.iter().filter_map(|(place, means)| {
        let point = curve.iter().position(|other| other == place)?;
        Some((point, rows[*place].chance?, means))
    });
    let measured: Vec<_> = measured.collect();
    let mut carried = [Floor::Relative, Floor::Absolute].map(|floor| {
        let effective = |replicate: usize| {
            for &(point, chance, means) in &measured {
                points[point].scaled = curve::scaled(means[replicate], chance);
            }
            curve::effective_length(&points, train_length, floor)
        };
        let effective = (0..REPLICATES).map(effective);
        effective.collect::<Vec<Option<Effective>>>()
    });
    let [relative, absolute] = carried.each_mut().map(|carried| ordinal_interval(carried));
    for &place in curve {
        let row = &mut rows[place];
        if let Some((low, high)) = relative {
            row.effective_length_low = low.map(|end| end.length);
            row.effective_length_high = high.map(|end| end.length);
            row.effective_length_high_censored = high.map(|end| end.censored);
        }
        if let Some((low, high)) = absolute {
            row.effective_length_absolute_low = low.map(|end| end.length);
            row.effective_length_absolute_high = high.map(|end| end.length);
            row.effective_length_absolute_high_censored = high.map(|end| end.censored);
        }
    }
}

/// The intervals of retention, of a curve that has learned.
fn retention(rows: &mut [SummaryRow], drawn: &Drawn) {
    let inside = drawn
        .points
        .partition_point(|(place, _)| Some(rows[*place].eval_length) <= rows[*place].train_length);
    let Some((first, base)) = inside.checked_sub(1).map(|first| &drawn.points[first]) else {
        return;
    };
    let chance = rows[*first].chance;
    let scaled = |mean: f64, chance: Option<f64>| curve::scaled(mean, chance?);
    for (place, means) in &drawn.points {
        let row = &mut rows[*place];
        if row.retention.is_none() {
            continue;
        }
        let ratio = |(mean, base): (&f64, &f64)| {
            let base = scaled(*base, chance).filter(|base| *base > 0.0)?;
            Some(scaled(*mean, row.chance)? / base)
        };
        let mut ratios: Vec<f64> = means.iter().zip(base).filter_map(ratio).collect();
        ratios.sort_by(f64::total_cmp);
        let ends = bootstrap::interval(&ratios);
        row.retention_low = ends.map(|(low, _)| low);
        row.retention_high = ends.map(|(_, high)| high);
    }
}

/// Ranks at each length among the curves that are shown.
fn rank(rows: &mut [SummaryRow], curves: &[Drawn]) {
    let shown = curves.iter().flat_map(|curve| &curve.points);
    let shown = shown.filter(|(place, _)| rows[*place].is_shown());
    for points in group(shown, |(place, _)| rows[*place].eval_length) {
        if points.len() < 2 {
            continue;
        }
        // Greater is better.
        let sign = if Kind::of(&rows[points[0].0].metric).is_accuracy() {
            1.0
        } else {
            -1.0
        };
        let drawn: Vec<Vec<f64>> = points
            .iter()
            .map(|(_, means)| means.iter().map(|mean| sign * mean).collect())
            .collect();
        let own = points.iter().map(|(place, _)| rows[*place].value);
        let own = own.map(|value| sign * value.unwrap_or(f64::NAN));
        let models: Vec<(f64, &[f64])> = own.zip(drawn.iter().map(Vec::as_slice)).collect();
        let found = ranks(&models);
        for ((place, _), rank) in points.iter().zip(found) {
            let row = &mut rows[*place];
            row.rank = Some(rank.rank);
            row.rank_low = Some(rank.low);
            row.rank_high = Some(rank.high);
        }
    }
}
