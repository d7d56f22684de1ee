#!/usr/bin/env python3
"""Does the law of two knobs that study 3's losses suggested predict other comparisons, of other domains and other models?

    python3 scripts/study_law.py docs/evidence/1b docs/evidence/4 --v docs/evidence/1a      (or runs/evidence/1b …)
    python3 scripts/study_law.py --self-test

The law is study_knobs's exploratory one, with each domain's noise in it,

    L_i = a_i − s ln alpha_i − t ln(B p_i) + beta ln(Σ alpha²v²/p / B),

and s, t, beta as fitted to docs/evidence/3a, 3b and 2-adamw-95 (three domains, equally noisy, so v = 1 there). Nothing is fitted to the
comparisons named: what is predicted is how each arm differs from its comparison's baseline, domain by domain, from the alpha, p and v of
the runs themselves, means over a run. v is that of the comparison's arms that measure it, or of the comparison behind --v.

Slope: of seen on predicted differences, through 0, over domains and arms; 1 where the law is right, 0 where it says nothing. Missed: the
root mean square of seen less predicted, to be held against that of the seen (what is missed by predicting no difference) and against
that of the baseline's repetition (what chance alone makes). Intervals are 95 %, the jackknife's over seeds.
"""

import argparse
import math
import random
import sys
import tempfile
from pathlib import Path

from comparison import Comparison, interval, jackknife, make_up, within
from study_knobs import Point, fit_own

FITTED = [Path(__file__).parent.parent / "docs/evidence" / name for name in ("3a", "3b", "2-adamw-95")]


def coefficients(paths):
    """s, t and beta of the static arms of these comparisons, over the seeds that all have."""
    studies = [Comparison(path) for path in paths]
    points = [Point(study, arm) for study in studies for arm in study.arms()]
    seeds = sorted(set.intersection(*(set(p.study.seeds(p.arm)) for p in points)))
    return fit_own([p for p in points if not p.learned], studies[0].domains, seeds)[0][-3:]


def deviations(study):
    """v by domain, the mean over the runs that measured it; None if none did."""
    runs = [run for arm in study.arms() if study.measured(arm) for run in study.shares[arm].values()]
    return {name: sum(run[name]["v"] for run in runs) / len(runs) for name in study.domains} if runs else None


class Predicted:
    """An arm's differences from its baseline: seen[seed][domain] and predicted[seed][domain]."""

    def __init__(self, study, arm, v, law):
        baseline = study.baseline()
        self.name, self.importance = f"{study.name} {arm}", study.importance
        self.seen, self.predicted = {}, {}
        for seed in study.seeds(arm, baseline):
            ours, theirs = ({name: value(study, of, seed, v, law, name) for name in study.domains} for of in (arm, baseline))
            self.predicted[seed] = {name: ours[name] - theirs[name] for name in study.domains}
            self.seen[seed] = {name: study.losses[arm][seed][name] - study.losses[baseline][seed][name] for name in study.domains}

    def means(self, some):
        """By domain (predicted, seen), means over those of `some` that the arm has."""
        seeds = [seed for seed in self.seen if seed in some]
        return {name: tuple(sum(of[seed][name] for seed in seeds) / len(seeds) for of in (self.predicted, self.seen)) for name in self.importance}

    def overall(self, of):
        """Seed by seed, the mean over the domains by importance."""
        return [sum(share * of[seed][name] for name, share in self.importance.items()) for seed in of]


def value(study, arm, seed, v, law, name):
    """The law's loss of a domain less a_i."""
    shares, size = study.shares[arm][seed], study.batch_size[arm]
    noise = sum((own["alpha"] * v[domain]) ** 2 / own["p"] for domain, own in shares.items()) / size
    s, t, beta = law
    return -s * math.log(shares[name]["alpha"]) - t * math.log(size * shares[name]["p"]) + beta * math.log(noise)


def pairs(arms, some):
    return [pair for arm in arms for pair in arm.means(some).values()]


def slope(arms, some):
    found = pairs(arms, some)
    return sum(p * seen for p, seen in found) / sum(p * p for p, _ in found)


def root_mean_square(values):
    values = list(values)
    return math.sqrt(sum(value * value for value in values) / len(values))


def row(name, arms):
    """One row of the table; `arms` are those that it is about."""
    seeds = sorted(set().union(*(arm.seen for arm in arms)))
    found = pairs(arms, seeds)
    cells = [f"{root_mean_square(seen for _, seen in found):.3f}", f"{root_mean_square(seen - p for p, seen in found):.3f}",
             within(jackknife(lambda some: slope(arms, some), seeds), "")]
    means = [within(interval(arms[0].overall(of))) for of in (arms[0].predicted, arms[0].seen)] if len(arms) == 1 else ["", ""]
    return f"| {name} | " + " | ".join(means + cells) + " |"


def report(paths, measured=None, fitted=FITTED):
    """`measured`: the comparison whose v serves where a comparison's own arms do not measure it."""
    law, studies = coefficients(fitted), [Comparison(path) for path in paths]
    elsewhere = deviations(Comparison(measured)) if measured else None
    arms, repeated = [], []
    for study in studies:
        v = deviations(study) or elsewhere or {}
        if set(v) != set(study.domains):
            sys.exit(f"{study.name}: expected v of {', '.join(study.domains)}, found that of {', '.join(v) or 'none'}; name a comparison that measured it behind --v")
        repeated.append(Predicted(study, study.baseline() + "~", v, law))
        arms += [Predicted(study, arm, v, law) for arm in study.arms() if arm != study.baseline()]
    noise = root_mean_square(seen for again in repeated for _, seen in again.means(again.seen).values())
    lines = ["s {:.3f}, t {:.3f}, beta {:.3f}; the repeated baselines differ by {:.3f} (root mean square over domains)".format(*law, noise),
             "", "| arm | mean: predicted | mean: seen | domains: seen | missed | slope |", "| --- | --- | --- | --- | --- | --- |"]
    lines += [row(arm.name, [arm]) for arm in arms] + [row("all", arms)]
    names = list(arms[0].importance)
    lines += ["", "| predicted, seen | " + " | ".join(names) + " |", "| --- |" + " --- |" * len(names)]
    for arm in arms:
        means = arm.means(arm.seen)
        lines.append(f"| {arm.name} | " + " | ".join("{:+.3f}, {:+.3f}".format(*means[name]) for name in names) + " |")
    everyone = sorted(set().union(*(arm.seen for arm in arms)))
    return "\n".join(lines), jackknife(lambda some: slope(arms, some), everyone)


def self_test():
    """The law with s = t = 0.25 and beta = 0.3 in both sets of domains; v = 1 where it is fitted. Then losses that know nothing of it."""
    draw, uniform = random.Random(9), (1 / 3,) * 3
    fitted = [("even", 12, uniform, uniform), ("small", 5, uniform, uniform), ("skewed", 12, uniform, (.8, .1, .1)),
              ("counted", 12, (.8, .1, .1), uniform), ("both", 12, (.5, .25, .25), (.5, .25, .25))]
    four, v = (.25,) * 4, [1.2, 0.8, 1.0, 1.0]
    other = [("even", 16, four, four), ("even~", 16, four, four), ("drawn", 16, (.4, .3, .2, .1), (.4, .3, .2, .1)),
             ("va", 16, four, (.3, .2, .25, .25)), ("counted", 16, (.1, .2, .3, .4), four)]
    common = [draw.gauss(0, 0.05) for _ in range(8)]

    def made(path, names, arms, v, scale):
        laws = {arm: [3 + i - scale * (0.25 * math.log(a) + 0.25 * math.log(size * q)
                                       - 0.3 * math.log(sum((b * w) ** 2 / r for b, w, r in zip(alpha, v, p)) / size))
                      for i, (a, q) in enumerate(zip(alpha, p))] for arm, size, alpha, p in arms}
        known = {arm: (size, alpha, p, v if arm == "va" else None) for arm, size, alpha, p in arms}
        losses = lambda arm, seed: [x + common[seed] + draw.gauss(0, 0.01) for x in laws[arm]]
        make_up(path, dict.fromkeys(names, 1 / len(names)), known, range(8), losses)

    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        made(folder / "fitted", "abc", fitted, [1.0] * 3, 1)
        made(folder / "right", "wxyz", other, v, 1)
        made(folder / "nothing", "wxyz", [arm for arm in other if arm[0] != "va"], v, 0)
        text, (found, half) = report([folder / "right"], fitted=[folder / "fitted"])
        print(text)
        assert abs(found - 1) < half < 0.1, (found, half)
        _, (found, half) = report([folder / "nothing"], folder / "right", [folder / "fitted"])
        assert abs(found) < half < 0.1, (found, half)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("comparisons", nargs="*", help="folders, or the prefixes of kept tables")
    parser.add_argument("--v", help="the comparison whose v serves where one does not measure it")
    parser.add_argument("--self-test", action="store_true")
    arguments = parser.parse_args()
    if not arguments.self_test and not arguments.comparisons:
        parser.error("expected a comparison, found none")
    self_test() if arguments.self_test else print(report(arguments.comparisons, arguments.v)[0])
