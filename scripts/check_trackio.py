#!/usr/bin/env python3
"""Has Trackio take in the inbox that a run wrote, and compares what it then knows with the run's metrics.jsonl.

    cargo build --release
    python3 -m venv v && v/bin/pip install trackio
    v/bin/python scripts/check_trackio.py [--cuvee PATH] [--folder FOLDER]

The run is one on this repository's texts, killed between two checkpoints and resumed. Trackio must show one run with every
number at its step, once, and with the run's config. FOLDER keeps the run, for check_tensorboard.py. Exit status 0 if all holds, 1 if anything does not.
"""

import argparse
import os
import sys
import tempfile
from collections import Counter
from pathlib import Path

import killed_run

PROJECT = "cuvee-check"


def check(run):
    """Problems, and how many numbers were compared. `TRACKIO_DIR` is set before Trackio is imported."""
    import trackio
    from trackio import fragments
    from trackio.sqlite_storage import SQLiteStorage

    lines = fragments.import_inbox_dir()
    print(f"Trackio took in {lines} lines")
    runs = list(trackio.Api().runs(PROJECT))
    if [r.name for r in runs] != ["run"]:
        return [f"expected one run called `run`, found {[r.name for r in runs]}"], 0
    found, times = {}, Counter()
    for entry in SQLiteStorage.get_logs(PROJECT, "run", run_id=runs[0].id):
        for key, value in entry.items():
            if key not in ("step", "timestamp"):
                found[key, entry["step"]] = value
                times[key, entry["step"]] += 1
    problems = [f"{tag} at step {step}: {n} times" for (tag, step), n in times.items() if n > 1]
    expected = killed_run.numbers(run, killed_run.printable)
    # The speed of a step that was done twice is that of the first time, in Trackio.
    of_results = lambda numbers: {key: n for key, n in numbers.items() if key[0] != "train/tokens_per_second"}
    problems += killed_run.differences(of_results(found), of_results(expected), lambda a, b: a == b)
    config = runs[0].config
    if config is None or config["seed"] != 1 or config["train"]["steps"] != killed_run.STEPS or not config["_Created"]:
        problems.append(f"the config is {config}")
    left = list(Path(os.environ["TRACKIO_DIR"], "inbox").rglob("*.jsonl"))
    if left:
        problems.append(f"left in the inbox: {left}")
    return problems, len(expected)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cuvee", default=killed_run.find_cuvee(), help="the cuvee binary")
    parser.add_argument("--folder", type=Path, help="a folder that is there, for the run; default: a temporary one")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["TRACKIO_DIR"] = str(Path(scratch, "trackio"))
        run = killed_run.make(options.cuvee, options.folder or Path(scratch), f"log.trackio={PROJECT}")
        problems, compared = check(run)
    return killed_run.finish(problems, compared)


if __name__ == "__main__":
    sys.exit(main())
