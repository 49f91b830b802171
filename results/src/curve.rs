//! What a whole curve says: whether the model has learned its task, how far it carries that, and its area.
//! Everything is of accuracy with chance removed, so that a model that guesses carries nothing.

/// Share of what lies between chance and all right that a model has to reach inside the training length
/// before it counts as having learned.
pub(crate) const LEARNED: f64 = 0.5;

/// Share of the in-length accuracy, chance removed, that counts as carried.
pub(crate) const CARRIED: f64 = 0.9;

/// A measured length of a curve, or one that was planned and has no value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Point {
    /// In tokens.
    pub length: u64,
    /// (accuracy - chance) / (1 - chance), where the length was measured and chance is known.
    pub scaled: Option<f64>,
    /// Whether the answers are above chance, by the lower end of Wilson's 95 % interval.
    pub above_chance: bool,
}

/// What a length has to keep to count as carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Floor {
    /// [`CARRIED`] of the in-length accuracy.
    Relative,
    /// [`LEARNED`]: at it the model would still count as having learned.
    Absolute,
}

/// The largest length of a curve that is measured to its end. Ordered by how far that is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Effective {
    /// In tokens.
    pub length: u64,
    /// Whether no longer length was seen to fail: the true one may be larger.
    pub censored: bool,
}

/// `(value - chance) / (1 - chance)`; `None` where chance leaves no room.
pub(crate) fn scaled(value: f64, chance: f64) -> Option<f64> {
    (chance < 1.0).then(|| (value - chance) / (1.0 - chance))
}

/// The place of the in-length point: the largest length inside the training length. `points` ascend.
pub(crate) fn in_length(points: &[Point], train_length: Option<u64>) -> Option<usize> {
    let inside = points.partition_point(|point| Some(point.length) <= train_length);
    inside.checked_sub(1)
}

/// Whether the model has learned its task; `None` where the in-length point has no value.
pub(crate) fn learned(in_length: &Point) -> Option<bool> {
    let scaled = in_length.scaled?;
    Some(scaled >= LEARNED && in_length.above_chance)
}

/// The largest length up to which every measured length keeps what it has to, of a model that has learned. It
/// never goes beyond a length without a value.
pub(crate) fn effective_length(
    points: &[Point],
    train_length: Option<u64>,
    floor: Floor,
) -> Option<Effective> {
    let first = in_length(points, train_length)?;
    let base = points[first]
        .scaled
        .filter(|_| learned(&points[first]) == Some(true))?;
    let least = match floor {
        Floor::Relative => CARRIED * base,
        Floor::Absolute => LEARNED,
    };
    let holds = |point: &Point| point.scaled.is_some_and(|value| value >= least);
    let rest = &points[first + 1..];
    let carried = rest.iter().take_while(|point| holds(point)).count();
    Some(Effective {
        length: points[first + carried].length,
        censored: rest.get(carried).is_none_or(|next| next.scaled.is_none()),
    })
}

/// Mean of the accuracy, chance removed, over log2 of length (trapezoids), over these ascending lengths;
/// `None` where one of them has no value, and of fewer than two.
pub(crate) fn area(points: &[Point], lengths: &[u64]) -> Option<f64> {
    let (first, last) = (*lengths.first()? as f64, *lengths.last()? as f64);
    let value = |length: &u64| {
        let place = points.binary_search_by_key(length, |point| point.length);
        Some(((*length as f64).log2(), points[place.ok()?].scaled?))
    };
    let known: Option<Vec<(f64, f64)>> = lengths.iter().map(value).collect();
    let area: f64 = known?
        .windows(2)
        .map(|pair| (pair[1].0 - pair[0].0) * (pair[0].1 + pair[1].1) / 2.0)
        .sum();
    (last > first).then(|| area / (last / first).log2())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Points at 64, 128, 256, ..; a negative value stands for none.
    fn points(values: &[f64]) -> Vec<Point> {
        values
            .iter()
            .enumerate()
            .map(|(place, &value)| Point {
                length: 64 << place,
                scaled: (value >= 0.0).then_some(value),
                above_chance: value > 0.05,
            })
            .collect()
    }

    fn effective(values: &[f64]) -> Option<(u64, bool)> {
        effective_length(&points(values), Some(64), Floor::Relative)
            .map(|found| (found.length, found.censored))
    }

    #[test]
    fn a_model_that_guesses_carries_nothing() {
        assert_eq!(effective(&[0.09, 0.0, 0.0]), None);
        assert_eq!(effective(&[0.49, 0.49, 0.49]), None);
        assert_eq!(learned(&points(&[0.49])[0]), Some(false));
        assert_eq!(learned(&points(&[-1.0])[0]), None);
        let few = Point {
            above_chance: false,
            ..points(&[0.6])[0]
        };
        assert_eq!(learned(&few), Some(false));
    }

    #[test]
    fn what_still_holds_at_the_end_is_a_lower_bound() {
        assert_eq!(effective(&[1.0, 0.95, 0.6]), Some((128, false)));
        assert_eq!(effective(&[1.0, 0.95, 0.9]), Some((256, true)));
        assert_eq!(effective(&[1.0, 0.2, 1.0]), Some((64, false)));
        assert_eq!(effective(&[1.0]), Some((64, true)));
    }

    #[test]
    fn an_absolute_floor_asks_for_no_share_of_the_base() {
        let absolute = |values: &[f64]| {
            let found = effective_length(&points(values), Some(64), Floor::Absolute);
            found.map(|found| (found.length, found.censored))
        };
        assert_eq!(absolute(&[1.0, 0.6, 0.49]), Some((128, false)));
        assert_eq!(absolute(&[0.6, 0.5, 0.5]), Some((256, true)));
        assert_eq!(absolute(&[0.49, 1.0]), None);
    }

    #[test]
    fn nothing_is_carried_past_a_gap() {
        assert_eq!(effective(&[1.0, -1.0, 1.0]), Some((64, true)));
        assert_eq!(effective(&[1.0, 1.0, -1.0]), Some((128, true)));
        assert_eq!(effective(&[-1.0, 1.0, 1.0]), None);
    }

    #[test]
    fn no_training_length_is_no_in_length_point() {
        let points = points(&[1.0, 1.0]);
        assert_eq!(effective_length(&points, None, Floor::Relative), None);
        assert_eq!(effective_length(&points, Some(63), Floor::Relative), None);
        assert_eq!(in_length(&points, Some(1000)), Some(1));
    }

    #[test]
    fn areas_are_over_equal_lengths_only() {
        let lengths = [64, 128, 256];
        assert_eq!(area(&points(&[1.0, 0.5, 0.0]), &lengths), Some(0.5));
        assert_eq!(area(&points(&[1.0, 0.5, -1.0]), &lengths), None);
        assert_eq!(area(&points(&[1.0, 0.5]), &lengths), None);
        assert_eq!(area(&points(&[1.0, 0.5, 0.0, -1.0]), &lengths), Some(0.5));
        assert_eq!(area(&points(&[1.0]), &[64]), None);
    }
}
