#!/usr/bin/env python3
"""What the studies' scripts share: a comparison's losses and shares, intervals over seeds, and fits.

    python3 scripts/comparison.py runs/evidence/3a docs/evidence/3a

keeps a comparison's folder as two tables: 3a.csv, its losses.csv as it is, and 3a-shares.csv, of each run the batch size and each
domain's alpha, what it counts, p, what it is drawn, and v, the root of its gradient's variance relative to the others'
(sum alpha v = 1), means over the run; v only where a strategy measured it. The studies read a folder or two such tables alike.
Needs nothing but Python.
"""

import csv
import json
import math
import sys
from collections import defaultdict
from pathlib import Path

from study_lm import interval

EVERY = 10      # of a run's steps so many are read at a time
LOSSES = ["arm", "seed", "domain", "importance", "windows", "loss"]
SHARES = ["arm", "seed", "domain", "batch_size", "alpha", "p", "v"]


class Comparison:
    """losses[arm][seed][domain]; importance[domain]; where the shares are kept, batch_size[arm] and
    shares[arm][seed][domain] = {alpha, p, v}."""

    def __init__(self, path):
        self.name, folder = Path(path).name, Path(path)
        self.losses, self.importance = defaultdict(lambda: defaultdict(dict)), {}
        for row in table(folder / "losses.csv" if folder.is_dir() else f"{path}.csv"):
            self.losses[row["arm"]][int(row["seed"])][row["domain"]] = float(row["loss"])
            self.importance[row["domain"]] = float(row["importance"])
        self.domains = list(self.importance)
        self.shares, self.batch_size = defaultdict(lambda: defaultdict(dict)), {}
        kept = Path(f"{path}-shares.csv")
        rows = run_shares(folder, self.losses) if folder.is_dir() else table(kept) if kept.exists() else []
        for row in rows:
            values = {key: float(row[key]) if row[key] not in ("", None) else None for key in ("alpha", "p", "v")}
            self.shares[row["arm"]][int(row["seed"])][row["domain"]] = values
            self.batch_size[row["arm"]] = int(row["batch_size"])

    def arms(self):
        """Without the baseline's repetition."""
        return [arm for arm in self.losses if not arm.endswith("~")]

    def baseline(self):
        """The arm that is there again with other draws (`NAME~`)."""
        found = [arm[:-1] for arm in self.losses if arm.endswith("~")]
        if len(found) != 1:
            sys.exit(f"{self.name}: expected one baseline with its repetition (NAME~), found {len(found)}")
        return found[0]

    def mean_loss(self, arm, seed):
        """Over the domains by importance, as the comparison judges."""
        return sum(share * self.losses[arm][seed][name] for name, share in self.importance.items())

    def seeds(self, *arms):
        """Those that all these arms have."""
        found = set.intersection(*(set(self.losses[arm]) for arm in arms))
        if not found:
            sys.exit(f"{self.name}: expected runs of {', '.join(arms)} from the same seeds, found none")
        return sorted(found)

    def differences(self, arm, baseline, seeds=None):
        """Seed by seed, of all that both have unless `seeds` says which."""
        seeds = self.seeds(arm, baseline) if seeds is None else seeds
        return [self.mean_loss(arm, seed) - self.mean_loss(baseline, seed) for seed in seeds]

    def measured(self, arm):
        """Whether the arm's strategy measured v, and so moved p."""
        return any(values["v"] is not None for run in self.shares[arm].values() for values in run.values())

    def deviations(self):
        """v by domain, the mean over the runs that measured it; None if none did."""
        runs = [run for arm in self.arms() if self.measured(arm) for run in self.shares[arm].values()]
        return {name: sum(run[name]["v"] for run in runs) / len(runs) for name in self.domains} if runs else None


def of_domains(v, name, domains):
    """v, which must be of the domains of what is called `name`."""
    if set(v or {}) != set(domains):
        sys.exit(f"{name}: expected v of {', '.join(domains)}, found that of {', '.join(v or {}) or 'none'}; "
                 "name a comparison that measured it behind --v")
    return v


def gradient_variance(shares, v):
    """Σ alpha²v²/p, for shares[domain] = {alpha, p}."""
    return sum((own["alpha"] * v[name]) ** 2 / own["p"] for name, own in shares.items())


def table(path):
    with open(path, newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def run_shares(folder, losses):
    """The rows of the shares' table, from the runs' own records."""
    rows = []
    for arm, seeds in losses.items():
        for seed in seeds:
            run = folder / arm / f"seed-{seed}"
            batch_size = json.loads((run / "plan.json").read_text(encoding="utf-8"))["batch_size"]
            sums, steps, measured = defaultdict(lambda: [0.0, 0.0, 0.0]), 0, 0
            with open(run / "metrics.jsonl", encoding="utf-8") as lines:
                for domains in (json.loads(line)["domains"] for number, line in enumerate(l for l in lines if '"kind":"step"' in l)
                                if number % EVERY == 0):
                    steps += 1
                    alpha = {name: d["multiplier"] * d["sampling_weight"] for name, d in domains.items()}
                    v = {name: d.get("gradient_deviation") for name, d in domains.items()}
                    known = None not in v.values()
                    measured += known
                    scale = sum(alpha[name] * v[name] for name in v) if known else 0.0
                    for name, d in domains.items():
                        add = (alpha[name], d["sampling_weight"], v[name] / scale if known else 0.0)
                        sums[name] = [a + b for a, b in zip(sums[name], add)]
            for name, (alpha, p, v) in sums.items():
                values = (alpha / steps, p / steps, v / measured if measured else "")
                rows.append(dict(zip(SHARES, (arm, seed, name, batch_size, *values))))
    return rows


def jackknife(estimate, seeds):
    """`estimate(seeds)` and the half-width of its 95 % interval, from what it is without each seed in turn."""
    whole, n = estimate(seeds), len(seeds)
    without = [estimate([s for s in seeds if s != seed]) for seed in seeds] if n > 1 else []
    _, half = interval([n * whole - (n - 1) * part for part in without] or [whole])
    return whole, half


def within(found, sign="+"):
    """`mean ± half` of an interval."""
    mean, half = found
    return f"{mean:{sign}.3f} " + ("" if half is None else f"± {half:.3f}")


def solve(matrix, right):
    """The least squares of matrix · x = right by its normal equations, and the sum of squares left over."""
    width = range(len(matrix[0]))
    normal = [[sum(row[i] * row[j] for row in matrix) for j in width] + [sum(row[i] * y for row, y in zip(matrix, right))]
              for i in width]
    for i in width:
        pivot = max(range(i, len(normal)), key=lambda k: abs(normal[k][i]))
        normal[i], normal[pivot] = normal[pivot], normal[i]
        for k in width:
            if k != i:
                factor = normal[k][i] / normal[i][i]
                normal[k] = [a - factor * b for a, b in zip(normal[k], normal[i])]
    x = [normal[i][-1] / normal[i][i] for i in width]
    return x, sum((sum(a * b for a, b in zip(row, x)) - y) ** 2 for row, y in zip(matrix, right))


def through_0(pairs):
    """The slope, through 0, of the second on the first of each pair."""
    return sum(x * y for x, y in pairs) / sum(x * x for x, _ in pairs)


def root_mean_square(values):
    values = list(values)
    return math.sqrt(sum(value * value for value in values) / len(values))


def write_table(path, header, rows):
    with open(path, "w", newline="", encoding="utf-8") as lines:
        writer = csv.DictWriter(lines, header, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def make_up(folder, importance, arms, seeds, loss):
    """A comparison's folder for a self-test: arms[name] = (batch size, alpha, p, v or None); loss(name, seed) by domain."""
    rows, names = [], list(importance)
    for arm, (batch_size, alpha, p, v) in arms.items():
        for seed in seeds:
            run = folder / arm / f"seed-{seed}"
            run.mkdir(parents=True)
            (run / "plan.json").write_text(json.dumps({"batch_size": batch_size}), encoding="utf-8")
            domains = {name: {"multiplier": alpha[i] / p[i], "sampling_weight": p[i]} | ({"gradient_deviation": v[i]} if v else {})
                       for i, name in enumerate(names)}
            step = json.dumps({"kind": "step", "domains": domains}, separators=(",", ":"))
            (run / "metrics.jsonl").write_text(f'{{"kind":"eval"}}\n{step}\n', encoding="utf-8")
            rows += [dict(zip(LOSSES, (arm, seed, name, importance[name], 64, value))) for name, value in zip(names, loss(arm, seed))]
    write_table(folder / "losses.csv", LOSSES, rows)


def keep(folder, prefix):
    """The two tables of a folder as PREFIX.csv and PREFIX-shares.csv."""
    folder = Path(folder)
    Path(prefix).parent.mkdir(parents=True, exist_ok=True)
    Path(f"{prefix}.csv").write_bytes((folder / "losses.csv").read_bytes())
    write_table(f"{prefix}-shares.csv", SHARES, run_shares(folder, Comparison(folder).losses))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    keep(*sys.argv[1:])
