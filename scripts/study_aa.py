#!/usr/bin/env python3
"""Many comparisons of a config with itself (configs/evidence/a-a.toml): does the test call equal
arms different as often as it says?

    python3 scripts/study_aa.py runs/evidence/a-a [--keep docs/evidence/a-a.csv]
    python3 scripts/study_aa.py docs/evidence/a-a.csv
    python3 scripts/study_aa.py --self-test

Of each comparison the baseline and its repetition with other draws (`NAME~`), seed by seed, as mean
losses over the domains. Prints how many p-values of the paired t-test are below 0.05, 0.1, 0.25 and
0.5, what of them chance allows (95 % of a binomial), the largest distance of their distribution from
the even one with the bound of Kolmogorov and Smirnov at 5 %, and the mean difference.
"""

import math
import random
import sys
import tempfile
from pathlib import Path

from comparison import LOSSES, Comparison, interval, table, within, write_table
from study_lm import p_value

COLUMNS = ["comparison", "seed", "baseline", "repetition"]


def rows_of(folder):
    """The losses of every comparison in the folder."""
    rows = []
    for path in sorted(Path(folder).glob("*/losses.csv"), key=lambda path: (len(path.parent.name), path.parent.name)):
        study = Comparison(path.with_suffix(""))
        baseline = study.baseline()
        repetition = f"{baseline}~"
        for seed in study.seeds(baseline, repetition):
            values = (path.parent.name, seed, study.mean_loss(baseline, seed), study.mean_loss(repetition, seed))
            rows.append(dict(zip(COLUMNS, values)))
    return rows


def chance(count, share):
    """The smallest and the largest number of `count` that chance has in 95 % of cases."""
    total, low, high = 0.0, None, count
    for k in range(count + 1):
        total += math.comb(count, k) * share ** k * (1 - share) ** (count - k)
        low = k if low is None and total > 0.025 else low
        if total >= 0.975:
            high = k
            break
    return low, high


def report(rows):
    pairs = {}
    for row in rows:
        pairs.setdefault(str(row["comparison"]), []).append(float(row["repetition"]) - float(row["baseline"]))
    p_values = sorted(p_value(differences) for differences in pairs.values())
    count = len(p_values)
    lines = ["| p below | found | chance (95 %) |", "| --- | --- | --- |"]
    for share in (0.05, 0.1, 0.25, 0.5):
        low, high = chance(count, share)
        lines.append(f"| {share} | {sum(p < share for p in p_values)} of {count} | {low} to {high} |")
    distance = max(max((i + 1) / count - p, p - i / count) for i, p in enumerate(p_values))
    every = [difference for differences in pairs.values() for difference in differences]
    lines += ["", f"distance from even {distance:.3f}, bound {1.358 / math.sqrt(count):.3f}; mean difference {within(interval(every))} over "
              f"{len(every)} pairs, {sum(d > 0 for d in every)} of them above 0"]
    return "\n".join(lines), p_values, distance


def self_test():
    """Equal arms pass; a shift that all seeds of a comparison share, which no pair can show, does not."""
    draw = random.Random(5)

    def made(shared):
        rows = []
        for k in range(60):
            shift = draw.gauss(0, shared)
            rows += [dict(zip(COLUMNS, (k, seed, 4 + draw.gauss(0, .1), 4 + shift + draw.gauss(0, .1)))) for seed in range(6)]
        return rows

    text, p_values, distance = report(made(0.0))
    assert distance < 1.358 / math.sqrt(60), text
    text, p_values, distance = report(made(0.1))
    assert distance > 1.358 / math.sqrt(60) and sum(p < 0.05 for p in p_values) > chance(60, 0.05)[1], text
    assert chance(60, 0.5) == (22, 38), chance(60, 0.5)
    with tempfile.TemporaryDirectory() as folder:
        for name, shift in (("0", 0.0), ("10", 0.2)):
            (Path(folder) / name).mkdir()
            write_table(Path(folder) / name / "losses.csv", LOSSES,
                        [dict(zip(LOSSES, (arm, seed, domain, 0.5, 4, 3 + seed + shift * (arm == "a~"))))
                         for arm in ("a", "a~", "b") for seed in (1, 2) for domain in ("x", "y")])
        assert [tuple(row.values()) for row in rows_of(folder)] == [
            ("0", 1, 4.0, 4.0), ("0", 2, 5.0, 5.0), ("10", 1, 4.0, 4.2), ("10", 2, 5.0, 5.2)], rows_of(folder)


def main():
    if len(sys.argv) not in (2, 4) or len(sys.argv) == 4 and sys.argv[2] != "--keep":
        sys.exit(__doc__)
    source = Path(sys.argv[1])
    rows = rows_of(source) if source.is_dir() else table(source)
    if not rows:
        sys.exit(f"{source}: expected comparisons with losses.csv, found none")
    if len(sys.argv) == 4:
        write_table(sys.argv[3], COLUMNS, rows)
    print(report(rows)[0])


if __name__ == "__main__":
    self_test() if sys.argv[1:] == ["--self-test"] else main()
