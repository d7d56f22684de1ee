#!/usr/bin/env python3
"""Study 3 (configs/evidence/3a-…, 3b-…): how much is what counts, alpha, and how much what is drawn, p?

    python3 scripts/study_knobs.py runs/evidence/3a runs/evidence/3b runs/evidence/2-adamw-95      (or docs/evidence/3a …)
    python3 scripts/study_knobs.py --self-test

Fits to the mean losses of all static arms, domain by domain with a common tau,

    L_i = a_i − s_i ln z_i + beta_i ln(Σ alpha²/p / B),      z_j ∝ alpha_j^(1 − tau) p_j^tau,

by least squares at each tau from −0.5 to 1.5. With domains beside the first of equal shares throughout, as in study 3, a domain's own
share says all that the shares say, so that this is the two-knob law of docs/search.md with a logarithm for its exponential. tau = 0:
only what counts matters; tau = 1: only what is drawn. Intervals are the jackknife's over the seeds that all comparisons have. Arms
whose strategy learns p are left out of the fit and predicted with their mean p.

Then, exploratory, a law that was found in study 3's losses: what a domain counts, how many sequences of it a step draws, and noise,

    L_i = a_i − s ln alpha_i − t ln(B p_i) + beta ln(Σ alpha²/p / B),

with s, t and beta the same in all domains. Both laws are judged by arms that they were not fitted to, each left out in turn.
"""

import math
import random
import sys
import tempfile
from pathlib import Path

from comparison import Comparison, interval, jackknife, make_up, root_mean_square, solve, within


class Point:
    """One arm of one comparison."""

    def __init__(self, study, arm):
        self.study, self.arm, self.learned = study, arm, study.measured(arm)
        runs = list(study.shares[arm].values())
        mean = {key: [sum(run[name][key] for run in runs) / len(runs) for name in study.domains] for key in ("alpha", "p")}
        self.alpha, self.p = mean["alpha"], mean["p"]
        self.batch_size = study.batch_size[arm]
        self.log_batch_loss = math.log(sum(a * a / p for a, p in zip(self.alpha, self.p)) / self.batch_size)

    def loss(self, seeds, domain):
        return sum(self.study.losses[self.arm][seed][domain] for seed in seeds) / len(seeds)

    def row(self, tau, i):
        z = [a ** (1 - tau) * p ** tau for a, p in zip(self.alpha, self.p)]
        return [1.0, -math.log(z[i] / sum(z)), self.log_batch_loss]

    def own_row(self, i):
        """Of the exploratory law, whose a_i alone are the domains' own."""
        levels = [1.0 if i == j else 0.0 for j in range(len(self.p))]
        return levels + [-math.log(self.alpha[i]), -math.log(self.batch_size * self.p[i]), self.log_batch_loss]


def points_of(paths):
    """Every arm of these comparisons, and the seeds that all of them have."""
    points = [Point(study, arm) for study in map(Comparison, paths) for arm in study.arms()]
    return points, sorted(set.intersection(*(set(p.study.seeds(p.arm)) for p in points)))


def dot(row, coefficients):
    return sum(x * y for x, y in zip(row, coefficients))


def fit(points, domains, seeds):
    """tau, by domain (a, s, beta), and the root mean square left over at it, at 0 and at 1."""
    def at(tau):
        solved = [solve([p.row(tau, i) for p in points], [p.loss(seeds, name) for p in points]) for i, name in enumerate(domains)]
        return sum(left for _, left in solved), [x for x, _ in solved]

    best, width = 0.5, 1.0
    for _ in range(4):
        best = min((best + width * k / 20 for k in range(-20, 21)), key=lambda tau: at(tau)[0])
        width /= 10
    rms = [math.sqrt(at(tau)[0] / (len(points) * len(domains))) for tau in (best, 0.0, 1.0)]
    return best, at(best)[1], rms


def fit_own(points, domains, seeds):
    """s, t and beta of the exploratory law, the same in all domains, behind each domain's a; and the root mean square left over."""
    rows = [p.own_row(i) for p in points for i in range(len(domains))]
    x, left = solve(rows, [p.loss(seeds, name) for p in points for name in domains])
    return x, math.sqrt(left / len(rows))


def left_out(points, domains, seeds):
    """Of each arm in turn: tau without it. And the root mean squares of what both laws, fitted without it, say wrong of it."""
    taus, wrong, own_wrong = {}, [], []
    for p in points:
        rest = [q for q in points if q is not p]
        tau, laws, _ = fit(rest, domains, seeds)
        taus[f"{p.study.name} {p.arm}"] = tau
        own, _ = fit_own(rest, domains, seeds)
        for i, name in enumerate(domains):
            seen = p.loss(seeds, name)
            wrong.append(seen - dot(p.row(tau, i), laws[i]))
            own_wrong.append(seen - dot(p.own_row(i), own))
    return taus, root_mean_square(wrong), root_mean_square(own_wrong)


def report(paths):
    points, seeds = points_of(paths)
    domains = points[0].study.domains
    static = [p for p in points if not p.learned]
    if len(static) < 5:
        sys.exit(f"expected at least 5 static arms to fit to, found {len(static)}; name study 3's two folders and study 2's AdamW")
    tau, laws, rms = fit(static, domains, seeds)
    _, half = jackknife(lambda some: fit(static, domains, some)[0], seeds)
    lines = [f"{len(static)} arms, {len(seeds)} seeds: tau {within((tau, half), '')}; root mean square of what is left over {rms[0]:.4f} nats "
             f"(tau = 0: {rms[1]:.4f}, tau = 1: {rms[2]:.4f})", "", "| domain | s | beta |", "| --- | --- | --- |"]
    coefficient = lambda some, i, which: fit(static, domains, some)[1][i][which]
    for i, name in enumerate(domains):
        found = [jackknife(lambda some, which=which: coefficient(some, i, which), seeds) for which in (1, 2)]
        lines.append(f"| {name} | " + " | ".join(map(within, found)) + " |")
    mean_beta = jackknife(lambda some: sum(law[2] for law in fit(static, domains, some)[1]) / len(domains), seeds)
    lines += [f"| mean | | {within(mean_beta)} |", "", "| arm | " + " | ".join(f"{name}: seen less fitted" for name in domains) + " |",
              "| --- |" + " --- |" * len(domains)]
    for p in points:
        fitted = [dot(p.row(tau, i), laws[i]) for i in range(len(domains))]
        less = [interval([p.study.losses[p.arm][seed][name] - p.loss(seeds, name) for seed in seeds])[1] for name in domains]
        cells = [within((p.loss(seeds, name) - f, h)) for name, f, h in zip(domains, fitted, less)]
        lines.append(f"| {p.study.name} {p.arm}{', predicted' if p.learned else ''} | " + " | ".join(cells) + " |")
    lines.append("\n± of these is one arm's own over seeds; seeds' common part is in all of them.")
    even = lambda shares: max(shares) - min(shares) < 1e-9
    plain = max((p for p in static if even(p.alpha) and even(p.p)), key=lambda p: p.batch_size, default=None)
    if plain:
        lines += ["", f"| less {plain.study.name} {plain.arm} | " + " | ".join(domains) + " |", "| --- |" + " --- |" * len(domains)]
        less = lambda p, name: interval([p.study.losses[p.arm][seed][name] - plain.study.losses[plain.arm][seed][name] for seed in seeds])
        lines += [f"| {p.study.name} {p.arm} | " + " | ".join(within(less(p, name)) for name in domains) + " |" for p in points if p is not plain]
    taus, wrong, own_wrong = left_out(static, domains, seeds)
    without = ", ".join(f"{tau:.3f} without {name}" for name, tau in sorted(taus.items(), key=lambda item: item[1])[:: len(taus) - 1])
    lines.append(f"\nArms left out in turn: tau from {without}; they are missed by {wrong:.4f} nats (root mean square).")
    own = [jackknife(lambda some, k=k: fit_own(static, domains, some)[0][len(domains) + k], seeds) for k in range(3)]
    lines.append(f"Exploratory law: s {within(own[0])}, t {within(own[1])}, beta {within(own[2])}; left over "
                 f"{fit_own(static, domains, seeds)[1]:.4f}, arms left out missed by {own_wrong:.4f}.")
    return "\n".join(lines), (tau, half), mean_beta


def self_test():
    """tau = 0.4, s = 0.3 to 0.5, beta = 0.4, noise of 0.03 that seeds share and 0.01 that they do not."""
    draw, names = random.Random(3), ("a", "b", "c")
    arms = {"3a": [("resample", (.8, .1, .1), (.8, .1, .1)), ("root", (.8, .1, .1), (.586, .207, .207)), ("reweight", (.8, .1, .1), (1 / 3,) * 3),
                   ("va", (.8, .1, .1), (.7, .2, .1))],
            "3b": [("resample", (.5, .25, .25), (.5, .25, .25)), ("root", (.5, .25, .25), (.4142, .2929, .2929)),
                   ("reweight", (.5, .25, .25), (1 / 3,) * 3)],
            "2": [("even-12", (1 / 3,) * 3, (1 / 3,) * 3), ("skewed", (1 / 3,) * 3, (.8, .1, .1)), ("even-5", (1 / 3,) * 3, (1 / 3,) * 3)]}
    common = [draw.gauss(0, 0.03) for _ in range(10)]

    def losses(arm, alpha, p):
        size = 5 if arm == "even-5" else 12
        z = [a ** 0.6 * q ** 0.4 for a, q in zip(alpha, p)]
        noise = 0.4 * math.log(sum(a * a / q for a, q in zip(alpha, p)) / size)
        return [4 + i - (0.3 + 0.1 * i) * math.log(z[i] / sum(z)) + noise for i in range(3)]

    with tempfile.TemporaryDirectory() as folder:
        for name, members in arms.items():
            made = {arm: (5 if arm == "even-5" else 12, alpha, p, [1.0] * 3 if arm == "va" else None) for arm, alpha, p in members}
            make_up(Path(folder) / name, dict.fromkeys(names, 1 / 3), made, range(10),
                    lambda arm, seed, made=made: [l + common[seed] + draw.gauss(0, 0.01) for l in losses(arm, *made[arm][1:3])])
        text, (tau, half), (beta, beta_half) = report([Path(folder) / name for name in arms])
        print(text)
        assert "they are missed by 0.00" in text
        assert abs(tau - 0.4) < half < 0.1 and abs(beta - 0.4) < beta_half < 0.1, (tau, half, beta, beta_half)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    self_test() if sys.argv[1:] == ["--self-test"] else print(report(sys.argv[1:])[0])
