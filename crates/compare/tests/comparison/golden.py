#!/usr/bin/env python3
"""Every number of a comparison by other means than the crate's: NumPy and SciPy 1.17.1.

Reads losses.txt: a line an arm, `|` between seeds; the first three windows are of the domain `web`
(π = 0.6), the other two of `code` (0.4). Curves are Y + .30, .14, .05 and 0 at 250, 500, 750 and
1,000 thousand tokens. δ = 0.01, α = 0.05; `uniform` is the baseline and `uniform~` its repetition.

    python3 golden.py > golden.txt
"""

from pathlib import Path

import numpy as np
from scipy import stats
from scipy.integrate import quad
from scipy.optimize import brentq

BASELINE, FAMILY = "uniform", ["va", "erma"]
DOMAINS = [("web", 0.6, slice(0, 3)), ("code", 0.4, slice(3, 5))]
PI = np.array([pi for _, pi, _ in DOMAINS])
t_tail, z_tail = stats.t.isf, stats.norm.isf


def read():
    lines = (Path(__file__).parent / "losses.txt").read_text().splitlines()
    rows = (line.split(maxsplit=1) for line in lines)
    return {
        name: np.array([[float(x) for x in seed.split()] for seed in row.split("|")])
        for name, row in rows
    }


def interval(values):
    return t_tail(0.025, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))


def window_variance(d):
    n, w = d.shape
    windows, seeds, mean = d.mean(0), d.mean(1, keepdims=True), d.mean()
    ms_windows = n / (w - 1) * ((windows - mean) ** 2).sum()
    ms_rest = ((d - seeds - windows + mean) ** 2).sum() / ((n - 1) * (w - 1))
    return max(0, ms_windows - ms_rest) / (n * w)


def test(d, v):
    n, s = len(d), d.std(ddof=1)

    def half(a):
        return np.sqrt((t_tail(a / 2, n - 1) * s) ** 2 / n + z_tail(a / 2) ** 2 * v)

    p = 2 * stats.t.sf(abs(d.mean()) / np.sqrt(s * s / n + v), n - 1)
    return {
        "difference": d.mean(), "difference_ci95": half(0.05), "sd_seeds": s,
        "se_windows": np.sqrt(v), "p_value": p, "equivalent_within": abs(d.mean()) + half(0.1),
    }


def power(shift, a, nu):
    """Of the two-sided t test: the normal tails over the distribution of s/σ."""
    t = t_tail(a / 2, nu)

    def integrand(y):
        density = stats.chi.pdf(y * np.sqrt(nu), nu) * np.sqrt(nu)
        return density * (stats.norm.sf(t * y - shift) + stats.norm.sf(t * y + shift))

    return quad(integrand, 0, 10, points=[shift / t], epsabs=1e-12, limit=500)[0]


def holm(p):
    corrected, largest = np.zeros(len(p)), 0
    for rank, index in enumerate(np.argsort(p)):
        largest = max(largest, min(1, p[index] * (len(p) - rank)))
        corrected[index] = largest
    return corrected


def log_speedup(baseline, arm):
    x, above = np.log([0.25, 0.5, 0.75, 1]), np.array([0.30, 0.14, 0.05, 0])
    goal = max(baseline, arm)
    return np.interp(-goal, -(baseline + above), x) - np.interp(-goal, -(arm + above), x)


def show(*name_and_value):
    *name, value = name_and_value
    print(".".join(name), repr(float(value)))


windows = read()
domain_losses = {n: np.array([x[:, part].mean(1) for _, _, part in DOMAINS]) for n, x in windows.items()}
losses = {name: PI @ of_domains for name, of_domains in domain_losses.items()}
n = len(losses[BASELINE])
tests, domain_tests = {}, {}
for name, y in losses.items():
    show(name, "mean_loss", y.mean())
    show(name, "ci95", interval(y))
    show(name, "worst_domain_loss", domain_losses[name].mean(1).max())
    for (domain, _, _), values in zip(DOMAINS, domain_losses[name]):
        show(name, domain, "loss", values.mean())
        show(name, domain, "ci95", interval(values))
    if name == BASELINE:
        continue
    d = windows[name] - windows[BASELINE]
    v = [window_variance(d[:, part]) for _, _, part in DOMAINS]
    tests[name] = found = test(y - losses[BASELINE], PI**2 @ v)
    level = 0.05 / len(FAMILY) if name in FAMILY else 0.05
    of_windows = found["se_windows"] ** 2
    found["mde"] = np.sqrt(found["sd_seeds"] ** 2 + n * of_windows) * brentq(
        lambda e: power(e * np.sqrt(n), level, n - 1) - 0.8, 0.1, 30, xtol=1e-12)
    upper = found["sd_seeds"] * np.sqrt((n - 1) / stats.chi2.ppf(0.2, n - 1))
    found["seeds_needed"] = next(
        k for k in range(2, 10_000)
        if power(0.01 / np.sqrt(upper**2 / k + of_windows), level, k - 1) >= 0.8)
    logs = np.array([log_speedup(b, a) for b, a in zip(losses[BASELINE], y)])
    found["speedup"] = np.exp(logs.mean())
    found["speedup_low"] = np.exp(logs.mean() - interval(logs))
    found["speedup_high"] = np.exp(logs.mean() + interval(logs))
    worst = domain_losses[name].max(0) - domain_losses[BASELINE].max(0)
    found["worst_domain_difference"] = worst.mean()
    found["worst_domain_difference_ci95"] = interval(worst)
    domain_tests[name] = [
        test(domain_losses[name][i] - domain_losses[BASELINE][i], v[i]) for i in range(len(DOMAINS))]
for family in (FAMILY, ["uniform~"]):
    for name, p in zip(family, holm([tests[name]["p_value"] for name in family])):
        tests[name]["p_holm"] = p
    members = [found for name in family for found in domain_tests[name]]
    for found, p in zip(members, holm([found["p_value"] for found in members])):
        found["p_holm"] = p
for name, found in tests.items():
    for key, value in found.items():
        show(name, key, value)
    for (domain, _, _), of_domain in zip(DOMAINS, domain_tests[name]):
        for key in ("difference", "difference_ci95", "p_value", "p_holm"):
            show(name, domain, key, of_domain[key])
means = [0] + [tests[name]["difference"] for name in FAMILY]
noise = np.sqrt(np.mean([tests[name]["sd_seeds"] ** 2 for name in FAMILY]))
show("signal_to_noise", np.std(means, ddof=1) / noise)
slope = np.polyfit(np.log([0.5, 0.75, 1]), [0.14, 0.05, 0], 1)[0]
show("nats_per_percent_of_tokens", -slope * np.log(1.01))
