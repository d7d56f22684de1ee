#!/usr/bin/env python3
"""Compares what TensorBoard itself reads in a run's event files with the run's metrics.jsonl, number by number.

    cargo build --release
    python3 -m venv v && v/bin/pip install tensorboard
    v/bin/python scripts/check_tensorboard.py [RUN ...] [--cuvee PATH]

Without a run folder it makes a run on this repository's texts, kills it between two checkpoints and resumes it. Every number
must be there with its step, once, also for a reader that ignores the marks of a restart; the config must be there as a text.
Exit status 0 if all holds, 1 if anything does not.
"""

import argparse
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import killed_run


def check(run):
    """Problems of one run, and how many numbers were compared."""
    expected = killed_run.numbers(run, killed_run.printable)
    problems = []
    for purge in (True, False):
        everything = {"scalars": 0, "tensors": 0}
        events = EventAccumulator(str(run / "tensorboard"), size_guidance=everything, purge_orphaned_data=purge).Reload()
        found, times = {}, Counter()
        for tag in events.Tags()["scalars"]:
            for scalar in events.Scalars(tag):
                found[tag, scalar.step] = scalar.value
                times[tag, scalar.step] += 1
        problems += [f"{tag} at step {step}: {n} times" for (tag, step), n in times.items() if n > 1]
        # The format keeps single precision.
        problems += killed_run.differences(found, expected, lambda a, b: numpy.float32(a) == numpy.float32(b))
        text = b"".join(events.Tensors("config")[0].tensor_proto.string_val).decode()
        lines = [line.removeprefix("    ") for line in text.splitlines()]
        if lines[0] != (run / "config.toml").read_text().splitlines()[0]:
            problems.append(f"the config begins with {lines[0]!r}")
    return problems, len(expected)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", type=Path, help="run folders")
    parser.add_argument("--cuvee", default=killed_run.find_cuvee(), help="the cuvee binary")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        runs = options.runs or [killed_run.make(options.cuvee, Path(scratch))]
        checked = [check(run) for run in runs]
    problems = [f"{run}: {problem}" for run, (found, _) in zip(runs, checked) for problem in found]
    return killed_run.finish(problems, sum(compared for _, compared in checked))


if __name__ == "__main__":
    sys.exit(main())
