//! Ranks with uncertainty: which places a model takes when everything is drawn once more.

use rayon::prelude::*;

use crate::bootstrap::ordinal_interval;

/// The place of a model among those that it is compared with; 1 is the best.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rank {
    /// One more than there are better ones: equal models share the best of their places.
    pub rank: u64,
    /// Best place, at the lower end of the 95 % interval.
    pub low: u64,
    /// Worst place, at its upper end.
    pub high: u64,
}

/// The ranks of models with these values, greater being better, each with its replicates, of which those at one place were
/// drawn together. Of equal replicates each model takes the best place that they share into its lower end and
/// the worst into its upper end, so that models which are never told apart have all of their places.
pub fn ranks(models: &[(f64, &[f64])]) -> Vec<Rank> {
    let replicates = models.iter().map(|(_, drawn)| drawn.len()).min();
    let replicates = replicates.unwrap_or(0);
    let of_replicate = |replicate: usize| {
        let values: Vec<f64> = models.iter().map(|(_, drawn)| drawn[replicate]).collect();
        places(&values)
    };
    let drawn: Vec<_> = (0..replicates).into_par_iter().map(of_replicate).collect();
    let own: Vec<f64> = models.iter().map(|(value, _)| *value).collect();
    let own: Vec<(u64, u64)> = places(&own);
    let rank = |(model, own): (usize, &(u64, u64))| {
        let mut best: Vec<u64> = drawn.iter().map(|places| places[model].0).collect();
        let mut worst: Vec<u64> = drawn.iter().map(|places| places[model].1).collect();
        Rank {
            rank: own.0,
            low: ordinal_interval(&mut best).map_or(own.0, |(low, _)| low),
            high: ordinal_interval(&mut worst).map_or(own.1, |(_, high)| high),
        }
    };
    own.par_iter().enumerate().map(rank).collect()
}

/// The best and the worst place of each value among all, greater being better.
fn places(values: &[f64]) -> Vec<(u64, u64)> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&one, &other| values[other].total_cmp(&values[one]));
    let mut places = vec![(0, 0); values.len()];
    let mut before = 0;
    for equal in order.chunk_by(|&one, &other| values[one] == values[other]) {
        let shared = (before + 1, before + equal.len() as u64);
        equal.iter().for_each(|&place| places[place] = shared);
        before += equal.len() as u64;
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_models_share_all_their_places() {
        let rank = |rank, low, high| Rank { rank, low, high };
        let (high, low) = ([0.9; 40], [0.5; 40]);
        let found = ranks(&[(0.9, &high), (0.5, &low), (0.9, &high)]);
        assert_eq!(found, [rank(1, 1, 2), rank(3, 3, 3), rank(1, 1, 2)]);
        assert_eq!(ranks(&[]), []);
        assert_eq!(ranks(&[(0.5, &[])]), [rank(1, 1, 1)]);
    }

    #[test]
    fn a_model_that_is_sometimes_better_may_be_first() {
        // Better in one of twenty draws, and in one of a hundred.
        let mut some = [0.4; 100];
        some[..5].fill(0.6);
        let steady = [0.5; 100];
        let found = ranks(&[(0.4, &some), (0.5, &steady)]);
        assert_eq!((found[0].low, found[0].high), (1, 2));
        some[1..5].fill(0.4);
        let found = ranks(&[(0.4, &some), (0.5, &steady)]);
        assert_eq!((found[0].low, found[0].high), (2, 2));
    }
}
