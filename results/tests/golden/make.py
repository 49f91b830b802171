"""Writes golden.json: what SciPy and statsmodels make of the same numbers.

    pip install numpy==2.4.6 scipy==1.17.1 statsmodels==0.15.0
    python make.py > golden.json

Where a function of ours draws at random, so does this, from another generator and far more often.
"""

import json

import numpy as np
import scipy
import statsmodels
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import NormalIndPower, TTestPower
from statsmodels.stats.proportion import (
    confint_proportions_2indep,
    proportion_confint,
)

rng = np.random.default_rng(1)


def ends(interval):
    return [float(end) for end in interval]


def hierarchical(seeds, replicates=400_000):
    """Means over seeds, of seeds and of (value, weight) pairs drawn with replacement."""
    count = len(seeds)
    total = np.zeros(replicates)
    drawn = rng.integers(count, size=(replicates, count))
    for turn in range(count):
        for place, (values, weights) in enumerate(seeds):
            rows = np.flatnonzero(drawn[:, turn] == place)
            for part in np.array_split(rows, 40):
                picks = rng.integers(len(values), size=(len(part), len(values)))
                total[part] += values[picks].sum(1) / weights[picks].sum(1)
    return np.sort(total / count)


def effective(counts, samples, chance, share, replicates=100_000):
    """Places, from the in-length point, that a curve of seeds carries `share` of its first to (relative)
    or reaches `-share` at (absolute); -1 where it has not learned."""
    counts = np.array(counts)
    seeds, lengths = counts.shape
    drawn = rng.integers(seeds, size=(replicates, seeds))
    mean = rng.binomial(samples, counts[drawn] / samples).mean(1) / samples
    scaled = (mean - chance) / (1 - chance)
    floor = share * scaled[:, :1] if share > 0 else -share
    carried = np.cumprod(scaled >= floor, axis=1).sum(1) - 1
    return np.where(scaled[:, 0] >= 0.5, carried, -1)


def main():
    golden = {"made_by": f"SciPy {scipy.__version__}, statsmodels {statsmodels.__version__}"}
    golden["wilson"] = [
        [k, n, *ends(proportion_confint(k, n, method="wilson"))]
        for k, n in [(0, 20), (1, 29), (81, 263), (250, 256), (256, 256)]
    ]
    golden["clopper_pearson"] = [
        [k, n, *ends(proportion_confint(k, n, method="beta"))]
        for k, n in [(0, 5), (1, 5), (2, 3), (3, 3), (9, 10)]
    ]
    golden["student"] = [
        [m, sd, n, *ends(stats.t.interval(0.95, n - 1, loc=m, scale=sd / n**0.5))]
        for m, sd, n in [(0.5, 0.1, 2), (1.425, 0.36, 4), (-0.1, 0.05, 500)]
    ]
    golden["mcnemar"] = [
        [b, c, float(mcnemar([[0, b], [c, 0]], exact=True).pvalue)]
        for b, c in [(0, 0), (0, 5), (0, 6), (7, 2), (12, 12), (40, 61), (900, 1100)]
    ]
    families = [[0.01, 0.04, 0.03, 0.005], [0.5, 0.5], [0.001, 0.2, 0.9, 0.001, 0.04], [1.0]]
    golden["holm"] = [
        [p, [float(q) for q in multipletests(p, method="holm")[1]]] for p in families
    ]
    # In standard errors.
    normal = NormalIndPower().solve_power(nobs1=100, alpha=0.05, power=0.8, ratio=0) * 10
    golden["detectable_normal"] = float(normal)
    golden["detectable_student"] = [
        [n, float(TTestPower().solve_power(nobs=n, alpha=0.05, power=0.8) * n**0.5)]
        for n in [3, 5, 10, 30]
    ]
    golden["unpaired"] = [
        [a, n, b, m, *ends(confint_proportions_2indep(a, n, b, m, method="newcomb"))]
        for a, n, b, m in [(56, 70, 48, 80), (9, 10, 3, 10), (256, 256, 250, 256)]
    ]

    one = rng.binomial(1, 0.8, 60) - rng.binomial(1, 0.6, 60)
    drawn = stats.bootstrap(
        (one,), np.mean, n_resamples=400_000, method="percentile", batch=1000, rng=rng
    ).confidence_interval
    golden["bootstrap"] = {"values": one.tolist(), "interval": ends(drawn)}
    seeds = []
    for centre in [0.3, 0.05, 0.2]:
        weights = rng.integers(1, 5, 40).astype(float)
        seeds.append((np.round(rng.normal(centre, 0.4, 40) * weights, 3), weights))
    means = hierarchical(seeds)
    golden["hierarchical"] = {
        "seeds": [[values.tolist(), weights.tolist()] for values, weights in seeds],
        "interval": ends(np.quantile(means, [0.025, 0.975])),
        "deviation": float(means.std()),
    }

    flips = []
    for values in [[0.5, 0.25, -0.25, 1, 0.75, 0, 0.5, -0.5, 1, 0.25], [2, 3, 1, -1, 2, 4, 0, 1]]:
        pair = (np.array(values), np.zeros(len(values)))
        test = stats.permutation_test(
            pair, lambda x, y: np.mean(x - y), permutation_type="samples", n_resamples=np.inf
        )
        flips.append([values, float(test.pvalue)])
    golden["sign_flip"] = flips

    replicates = np.round(rng.normal([0.9, 0.88, 0.7, 0.69], [0.02, 0.02, 0.05, 0.01], (400, 4)), 2)
    best = stats.rankdata(-replicates, method="min", axis=1)
    worst = stats.rankdata(-replicates, method="max", axis=1)
    golden["ranks"] = {
        "replicates": replicates.T.tolist(),
        "low": np.quantile(best, 0.025, axis=0, method="inverted_cdf").tolist(),
        "high": np.quantile(worst, 0.975, axis=0, method="inverted_cdf").tolist(),
    }

    golden["effective_length"] = []
    for counts in [
        [[100, 97, 93, 85, 20]],
        [[100, 98, 95, 92, 60], [99, 97, 70, 30, 10], [100, 100, 99, 90, 55]],
        [[70, 66, 60, 50, 26]],
    ]:
        for share in [0.9, -0.5]:
            carried = effective(counts, 100, 0.25, share)
            low, high = np.quantile(carried, [0.025, 0.975], method="inverted_cdf")
            golden["effective_length"].append([counts, share, int(low), int(high)])
    print(json.dumps(golden, indent=1))


main()
