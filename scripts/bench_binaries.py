#!/usr/bin/env python3
"""Speed of two builds of `cuvee`, interleaved: training, tokenizing, preparing and loading.

    scripts/bench_binaries.py OLD NEW --text FILE … --tokenizer FILE [--rounds 7] [--only NAME …]

Each round runs every measurement once with each binary, in processes of their own, in alternating
order, so that whatever else the machine does falls on both. A figure is the median over rounds; the
ratio is the new rate over the old one, above 1 where the new build is faster, with a 95 % interval
from a bootstrap over rounds. Prints a table in Markdown. Exits with 1 if a figure is worse beyond
its interval, that is if the whole interval lies below 1.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measure import interval, machine

TRAIN = {
    "training S, f32": ["--size", "s", "--precision", "f32", "--steps", "12"],
    "training S, bf16": ["--size", "s", "--precision", "bf16", "--steps", "8"],
    "training M, f32": ["--size", "m", "--precision", "f32", "--steps", "3"],
    "training S, reference engine": [
        "--size", "s", "--precision", "f32", "--engine", "reference", "--steps", "4",
    ],
}
OTHERS = ["tokenizing, first pass", "preparing", "loading windows", "first batch"]
CONFIG = """
[tokenizer]
file = {tokenizer}
[[domain]]
name = "text"
source = {{ path = {text} }}
"""


def document(binary, *arguments, environment=None):
    """The JSON document that a command prints."""
    done = subprocess.run(
        [binary, *arguments, "--json", "--quiet"],
        stdout=subprocess.PIPE, env=environment, check=True,
    )
    return json.loads(done.stdout)


def prepare(binary, given):
    """Megabytes of text a second from JSON lines to shards, the whole process."""
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "config.toml"
        text = [str(path.resolve()) for path in given.text]
        config.write_text(CONFIG.format(
            tokenizer=json.dumps(str(given.tokenizer.resolve())), text=json.dumps(text)
        ))
        begun = time.perf_counter()
        made = document(binary, "prepare", str(config), "--out", str(Path(folder) / "shards"))
        seconds = time.perf_counter() - begun
    return made["bytes"] / 1e6 / seconds


def measure(name, binary, given):
    """One measurement, as a rate: more is better."""
    if name in TRAIN:
        found = document(binary, "bench", "train", "--warmup", "2", *TRAIN[name])
        return found["tokens_per_second"]
    if name == "tokenizing, first pass":
        found = document(
            binary, "bench", "tokenize", "--passes", "1", "--tokenizer", str(given.tokenizer),
            "--text", *map(str, given.text),
        )
        return found["megabytes_per_second"]
    if name == "preparing":
        return prepare(binary, given)
    found = document(binary, "bench", "load", "--tokens", "1000000000", "--seconds", "2")
    return found["tokens_per_second"] if name == "loading windows" else 1e3 / found["first_batch_ms"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--text", nargs="+", type=Path, required=True, help="JSON lines")
    parser.add_argument("--tokenizer", type=Path, required=True, help="a tokenizer.json")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", nargs="+", choices=[*TRAIN, *OTHERS], default=[*TRAIN, *OTHERS])
    given = parser.parse_args()
    binaries = {"old": given.old.resolve(), "new": given.new.resolve()}
    rates = {name: {"old": [], "new": []} for name in given.only}
    for number in range(given.rounds):
        order = ["old", "new"] if number % 2 == 0 else ["new", "old"]
        for name in given.only:
            for which in order:
                rates[name][which].append(measure(name, binaries[which], given))
        print(f"round {number + 1} of {given.rounds}", file=sys.stderr, flush=True)
    print(f"{machine()}; {given.rounds} rounds\n")
    print("| measurement | old | new | new over old (95 %) |\n| --- | --- | --- | --- |")
    worse = 0
    for name, rate in rates.items():
        def ratio(chosen):
            new = statistics.median(rate["new"][i] for i in chosen)
            return new / statistics.median(rate["old"][i] for i in chosen)
        value = ratio(range(given.rounds))
        low, high = interval(given.rounds, ratio) or (value, value)
        worse += high < 1
        old, new = (statistics.median(rate[which]) for which in ("old", "new"))
        print(f"| {name} | {old:,.0f} | {new:,.0f} | {value:.3f} ({low:.3f} to {high:.3f}) |")
    return 1 if worse else 0


if __name__ == "__main__":
    os.environ.setdefault("CANDLE_NUM_THREADS", "1")
    sys.exit(main())
