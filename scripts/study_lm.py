#!/usr/bin/env python3
"""The language-model study of docs/method.md: rules × corruption rates × seeds, through the cuvee binary.

    cargo build --release
    scripts/study_lm.py [--out runs/study-lm] [--seeds 3] [--rates 0,0.5,1] [--arms uniform,va,…] [--set KEY=VALUE …]

Each run is a folder of its own under --out; one that is whole is not run again, and one that was interrupted goes on, so
the study can be stopped and started at will. Prints, for every rate and arm, the mean over seeds of the clean valid
losses with a 95 % interval (Student's t), how far that of the clean domains is from the first arm's seed by seed, with its
p-value corrected by Holm over all such differences, and the loss and sampling weights of the corrupted domain at the end;
writes the same as OUT/study.json and OUT/study.md. A single seed has neither interval nor p-value. Needs nothing but Python
and the binary.
"""

import argparse
import json
import math
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CORRUPTED = "latex"
VA = 'mixture.sampling={ strategy = "va" }'
ERMA = 'mixture.loss={ strategy = "erma" }'
FGLS = 'mixture.loss={ strategy = "fgls" }'
ARMS = {"uniform": [], "va": [VA], "erma": [ERMA], "erma+va": [ERMA, VA], "fgls+va": [FGLS, VA]}
# Two-sided 95 % quantiles of Student's t for 1 to 30 degrees of freedom.
STUDENT = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
           2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042]


def run(binary, config, out, arm, rate, seed, extra):
    """Trains unless that has been done; returns the records of metrics.jsonl."""
    folder = out / f"{arm}-rate{rate:g}-seed{seed}"
    if not (folder / "export" / "config.json").exists():
        sets = [f"domain.{CORRUPTED}.source.corrupt.shuffle_tokens={float(rate)}", *ARMS[arm], *extra]
        command = [binary, "train", config, "--out", folder, "--seed", seed, "-q"]
        command += [word for entry in sets for word in ("--set", entry)]
        command += ["--resume"] if folder.exists() else []
        done = subprocess.run([str(word) for word in command], check=False)
        if done.returncode != 0:
            sys.exit(done.returncode)
    with open(folder / "metrics.jsonl", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def interval(values):
    """Mean and half-width of its 95 % interval; None of a single value, which has no spread."""
    mean = sum(values) / len(values)
    if len(values) < 2:
        return mean, None
    deviation = math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1))
    return mean, STUDENT[min(len(values) - 2, 29)] * deviation / math.sqrt(len(values))


def p_value(values):
    """Two-sided p of Student's t-test that the mean is 0; None of a single value."""
    mean, half = interval(values)
    if half is None:
        return None
    degrees = len(values) - 1
    if half == 0:
        return 1.0 if mean == 0 else 0.0
    t = abs(mean) / half * STUDENT[min(degrees - 1, 29)]
    # The density of t = √ν tan φ goes as cos^(ν−1) φ: Simpson's rule on both sides of the
    # observed angle.
    def integral(low, high, pieces=2000):
        width = (high - low) / pieces
        heights = [max(math.cos(low + k * width), 0.0) ** (degrees - 1) for k in range(pieces + 1)]
        return width / 3 * (heights[0] + heights[-1] + 4 * sum(heights[1:-1:2]) + 2 * sum(heights[2:-1:2]))
    angle = math.atan(t / math.sqrt(degrees))
    return integral(angle, math.pi / 2) / integral(0, math.pi / 2)


def holm(rows):
    """Adds `holm` to the rows with a `p`: the p-value corrected for all of them (Holm, 1979)."""
    tested = sorted((row for row in rows if row["p"] is not None), key=lambda row: row["p"])
    largest = 0.0
    for rank, row in enumerate(tested):
        largest = max(largest, min(1.0, (len(tested) - rank) * row["p"]))
        row["holm"] = largest


def clean_loss(domains):
    """The mean valid loss of the domains that are never corrupted."""
    losses = [found["loss"] for name, found in domains.items() if name != CORRUPTED]
    return sum(losses) / len(losses)


def summarise(arm, rate, runs, first):
    """What the seeds of one arm at one rate say together; `first` are the first arm's runs, of the same seeds."""
    last = [[r for r in records if r["kind"] == "eval"][-1]["domains"] for records in runs]
    steps = [[r for r in records if r["kind"] == "step"][-1]["domains"] for records in runs]
    names = list(last[0])
    mean, ci95 = interval([sum(d["loss"] for d in domains.values()) / len(domains) for domains in last])
    clean, clean_ci95 = interval([clean_loss(d) for d in last])
    base = [[r for r in records if r["kind"] == "eval"][-1]["domains"] for records in first]
    differences = [clean_loss(d) - clean_loss(b) for d, b in zip(last, base)]
    difference, difference_ci95 = interval(differences)

    def weights(key):
        return {name: interval([step[name][key] for step in steps])[0] for name in names}

    return {"arm": arm, "rate": rate, "seeds": len(runs), "mean_loss": mean, "ci95": ci95, "clean_domains_loss": clean,
            "clean_domains_ci95": clean_ci95, "difference": difference, "difference_ci95": difference_ci95,
            "p": None if runs is first else p_value(differences), "holm": None, "domains": {n: interval([d[n]["loss"] for d in last]) for n in names},
            "loss_weight": weights("loss_weight"), "sampling_weight": weights("sampling_weight")}


def table(rows):
    """The rows in Markdown."""
    def within(mean, half, sign=""):
        return f"{mean:{sign}.4f} " + ("–" if half is None else f"± {half:.4f}")

    lines = ["| rate | arm | mean valid loss | of the clean domains | less the first arm's, by seed | p, by Holm "
             "| w of the corrupted (others) | p of the corrupted |",
             "| --- | --- | --- | --- | --- | --- | --- | --- |"]
    for row in rows:
        others = ", ".join(f"{w:.2f}" for name, w in row["loss_weight"].items() if name != CORRUPTED)
        corrected = "" if row["holm"] is None else f"{row['holm']:.3f}"
        lines.append(f"| {row['rate']:g} | {row['arm']} | {within(row['mean_loss'], row['ci95'])} "
                     f"| {within(row['clean_domains_loss'], row['clean_domains_ci95'])} "
                     f"| {within(row['difference'], row['difference_ci95'], '+')} | {corrected} "
                     f"| {row['loss_weight'][CORRUPTED]:.2f} ({others}) | {row['sampling_weight'][CORRUPTED]:.3f} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cuvee", default=str(ROOT / "target/release/cuvee"), help="the binary")
    parser.add_argument("--config", default=str(ROOT / "configs/studies/lm.toml"))
    parser.add_argument("--out", type=Path, default=Path("runs/study-lm"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rates", default="0,0.5,1")
    parser.add_argument("--arms", default=",".join(ARMS))
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    given = parser.parse_args()
    unknown = [arm for arm in given.arms.split(",") if arm not in ARMS]
    if unknown:
        parser.error(f"no such arm: {', '.join(unknown)}; there are {', '.join(ARMS)}")
    rates = [float(rate) for rate in given.rates.split(",")]
    given.out.mkdir(parents=True, exist_ok=True)
    rows = []
    for rate in rates:
        first = None
        for arm in given.arms.split(","):
            runs = []
            for seed in range(given.seeds):
                print(f"rate {rate:g}  {arm}  seed {seed}", file=sys.stderr, flush=True)
                runs.append(run(given.cuvee, given.config, given.out, arm, rate, seed, given.set))
            first = first or runs
            rows.append(summarise(arm, rate, runs, first))
    holm(rows)
    (given.out / "study.json").write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    (given.out / "study.md").write_text(table(rows) + "\n", encoding="utf-8")
    print(table(rows))


if __name__ == "__main__":
    main()
