#!/usr/bin/env python3
"""Study 4 (configs/evidence/4-headroom.toml): is what sampling gains what the gradient's variance predicts?

    python3 scripts/study_headroom.py runs/evidence/4      (or docs/evidence/4)
    python3 scripts/study_headroom.py docs/evidence/4 --v docs/evidence/4-sketch      (v as other runs measured it)
    python3 scripts/study_headroom.py --self-test

Predicted of an arm is beta · ln(Σ alpha² v²/p over the baseline's), with v as the arms measured it that learn p, means over the run
and over these arms, or as --v's runs did, means over these, which the intervals then take as known. beta is what the batch is worth,
(L of the smaller − L of the larger) / ln of their ratio, from the baseline and the arms that differ from it in batch size alone. The
slope is that of realised on predicted, through 0, over all other arms: 1 where variance says all, 0 where it says nothing. Seeds are
those that all arms have; intervals are 95 %, the jackknife's where beta is in them. Slopes of single arms are beside their
differences: the one of all arms rests on those that move the variance most.
"""

import argparse
import math
import random
import sys
import tempfile
from pathlib import Path

from comparison import Comparison, gradient_variance, interval, jackknife, make_up, of_domains, solve, through_0, within


def findings(study, baseline, elsewhere=None):
    """By name: (estimate, half-width); beta, the slope, and each arm's realised, predicted and slope. `elsewhere`: v by domain in place of
    the study's own."""
    arms = [arm for arm in study.arms() if arm != baseline]
    sizes = [arm for arm in arms if study.batch_size[arm] != study.batch_size[baseline]]
    others = [arm for arm in arms if arm not in sizes]
    learned = [arm for arm in others if study.measured(arm)]
    if not sizes or not (learned or elsewhere):
        sys.exit(f"{study.name}: expected arms of another batch size, and one that measures v, found {len(sizes)} and {len(learned)}")
    seeds = study.seeds(baseline, *arms)

    def log_variance(arm, seed):
        v = elsewhere or {name: sum(study.shares[a][seed][name]["v"] for a in learned) / len(learned) for name in study.domains}
        ours, theirs = (gradient_variance(study.shares[of][seed], v) for of in (arm, baseline))
        return math.log(ours / theirs)

    def beta(some):
        runs = [(math.log(study.batch_size[arm]), study.mean_loss(arm, seed) - sum(study.mean_loss(a, seed) for a in [baseline, *sizes]) / (len(sizes) + 1))
                for arm in [baseline, *sizes] for seed in some]
        return -solve([[1.0, size] for size, _ in runs], [loss for _, loss in runs])[0][1]

    realised = lambda arm, some: sum(study.mean_loss(arm, s) - study.mean_loss(baseline, s) for s in some) / len(some)
    predicted = lambda arm, some: beta(some) * sum(log_variance(arm, s) for s in some) / len(some)

    def slope(some, of):
        return through_0([(predicted(arm, some), realised(arm, some)) for arm in of])

    found = {"beta": jackknife(beta, seeds), "slope": jackknife(lambda some: slope(some, others), seeds)}
    for arm in others:
        found[arm] = (interval(study.differences(arm, baseline)), jackknife(lambda some, arm=arm: predicted(arm, some), seeds),
                      jackknife(lambda some, arm=arm: realised(arm, some) - predicted(arm, some), seeds),
                      jackknife(lambda some, arm=arm: slope(some, [arm]), seeds))
    return found, len(seeds)


def report(path, measured=None, baseline="matched"):
    study = Comparison(path)
    elsewhere = of_domains(Comparison(measured).deviations(), study.name, study.domains) if measured else None
    found, seeds = findings(study, baseline, elsewhere)
    beta, slope = found.pop("beta"), found.pop("slope")
    lines = [f"v of {Path(measured or path).name}; {seeds} seeds; beta {within(beta)} nats an e-fold of the batch; "
             f"slope of realised on predicted {within(slope, '')}", "",
             "| arm | realised, all its seeds | predicted | realised less predicted | slope |", "| --- | --- | --- | --- | --- |"]
    return "\n".join(lines + [f"| {arm} | " + " | ".join(map(within, values)) + " |" for arm, values in found.items()])


def self_test():
    """beta = 0.35 and a slope of 1, noise of 0.05 that seeds share and 0.005 that they do not."""
    draw, names = random.Random(5), "abcd"
    alpha, v = [12 / 25, 6 / 25, 4 / 25, 3 / 25], [1.0, 1.5, 0.8, 1.2]
    best = [a * x / sum(b * y for b, y in zip(alpha, v)) for a, x in zip(alpha, v)]
    arms = {"matched": (24, alpha, alpha, None), "even": (24, alpha, [0.25] * 4, None), "va": (24, alpha, best, v),
            "matched-20": (20, alpha, alpha, None), "matched-29": (29, alpha, alpha, None)}
    common = [draw.gauss(0, 0.05) for _ in range(8)]

    def loss(arm, seed):
        size, _, p, _ = arms[arm]
        noise = math.log(sum(a * a * x * x / q for a, x, q in zip(alpha, v, p)) / size)
        return [4 + i + common[seed] + draw.gauss(0, 0.005) + 0.35 * noise for i in range(4)]

    with tempfile.TemporaryDirectory() as folder:
        make_up(Path(folder) / "4", dict(zip(names, alpha)), arms, range(8), loss)
        found, seeds = findings(Comparison(Path(folder) / "4"), "matched")
        print(report(Path(folder) / "4"))
        make_up(Path(folder) / "v", dict(zip(names, alpha)), {"va": (24, alpha, best, [1.0] * 4)}, range(2), loss)
        elsewhere, _ = findings(Comparison(Path(folder) / "4"), "matched", Comparison(Path(folder) / "v").deviations())
        assert elsewhere["beta"] == found["beta"] and elsewhere["va"][1][0] > 0 > found["va"][1][0]    # where v are alike, p = alpha is best
        for name, true, most in (("beta", 0.35, 0.05), ("slope", 1.0, 0.15)):
            mean, half = found[name]
            assert seeds == 8 and abs(mean - true) < half < most, (name, mean, half)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("comparison", help="a folder, or the prefix of kept tables")
    parser.add_argument("--v", help="the comparison whose v serves in place of the study's own")
    given = parser.parse_args()
    print(report(given.comparison, given.v))


if __name__ == "__main__":
    self_test() if sys.argv[1:] == ["--self-test"] else main()
