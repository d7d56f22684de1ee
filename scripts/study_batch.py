#!/usr/bin/env python3
"""Study 2 (configs/evidence/2-batch.toml): is the cost of a skewed p that of a smaller batch, and does it tilt the domains?

    python3 scripts/study_batch.py runs/evidence/2-adamw-95 runs/evidence/2-sgd …      (folders, or docs/evidence/2-adamw-95 …)
    python3 scripts/study_batch.py --self-test

A row a comparison, an optimizer each. Costs are losses above `even-12`; their ratio is 1 where p acts as a batch size alone. The
tilt is what `skewed` is above `even-5` on the domain that it draws most, less the mean of that on the others: below 0 where it
learned that domain better than a batch as noisy. Then the tilts' differences to the first comparison's, seed by seed.
All ± are 95 % intervals over the seeds that all three arms have, on the same windows, the ratio's by the jackknife; none is corrected
for the number of rows.
"""

import random
import sys
import tempfile
from pathlib import Path

from comparison import Comparison, interval, jackknife, keep, make_up, within

ARMS = ("skewed", "even-5", "even-12")


def tilts(study):
    """Of each seed."""
    _, shares = next(iter(study.shares["skewed"].items()))
    most = max(study.domains, key=lambda name: shares[name]["p"])

    def tilt(seed):
        above = {name: study.losses["skewed"][seed][name] - study.losses["even-5"][seed][name] for name in study.domains}
        return above[most] - sum(above[name] for name in study.domains if name != most) / (len(above) - 1)

    return {seed: tilt(seed) for seed in study.seeds(*ARMS)}


def ratio(study):
    """The cost of p over that of the batch."""
    def of(seeds):
        mean = {arm: sum(study.mean_loss(arm, seed) for seed in seeds) for arm in ARMS}
        return (mean["skewed"] - mean["even-12"]) / (mean["even-5"] - mean["even-12"])
    return jackknife(of, study.seeds(*ARMS))


def report(paths):
    studies = [Comparison(path) for path in paths]
    lines = ["| comparison | seeds | cost of batch 5 | cost of p | p less batch 5 | ratio | tilt |", "| --- | --- | --- | --- | --- | --- | --- |"]
    for study in studies:
        seeds = study.seeds(*ARMS)
        pairs = (("even-5", "even-12"), ("skewed", "even-12"), ("skewed", "even-5"))
        differences = [interval(study.differences(*pair, seeds)) for pair in pairs]
        tilt = interval(list(tilts(study).values()))
        lines.append(f"| {study.name} | {len(seeds)} | " + " | ".join(map(within, differences)) + f" | {within(ratio(study), '')} | {within(tilt)} |")
    first = tilts(studies[0])
    for study in studies[1:]:
        own = tilts(study)
        difference = interval([own[seed] - first[seed] for seed in own if seed in first])
        lines.append(f"\ntilt of {study.name} less that of {studies[0].name}: {within(difference)}")
    return "\n".join(lines)


def self_test():
    """A cost of 0.35 for both, a tilt of -0.2, noise of 0.02 that seeds share and 0.02 that they do not."""
    draw, even = random.Random(1), [1 / 3] * 3
    common = [draw.gauss(0, 0.02) for _ in range(8)]
    cost = {"even-12": [0, 0, 0], "even-5": [0.35] * 3, "skewed": [0.35 - 0.4 / 3, 0.35 + 0.2 / 3, 0.35 + 0.2 / 3], "even-5~": [0.35] * 3}
    arms = {arm: (5 if "5" in arm else 12, even, [0.8, 0.1, 0.1] if arm == "skewed" else even, None) for arm in cost}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "2-made-up"
        make_up(path, dict.fromkeys(("a", "b", "c"), 1 / 3), arms, range(8),
                lambda arm, seed: [4 + common[seed] + c + draw.gauss(0, 0.02) for c in cost[arm]])
        study = Comparison(path)
        for (mean, half), true in ((ratio(study), 1.0), (interval(list(tilts(study).values())), -0.2)):
            assert abs(mean - true) < half < 0.15, (mean, half, true)
        text = report([path, path])
        assert text.endswith("less that of 2-made-up: +0.000 ± 0.000"), text
        keep(path, Path(folder) / "kept")
        assert report([Path(folder) / "kept"] * 2).replace("kept", "2-made-up") == text
        print(text)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    self_test() if sys.argv[1:] == ["--self-test"] else print(report(sys.argv[1:]))
