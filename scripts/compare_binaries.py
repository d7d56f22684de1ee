#!/usr/bin/env python3
"""Compares two builds of `cuvee`: same shards, checkpoints, exports and losses, byte for byte.

    scripts/compare_binaries.py OLD NEW [--work DIR] [--only NAME …]

Runs both binaries on the quickstart, the eight domains, a mixture study and the lab's three studies,
each in a folder and a cache of its own, and compares every shard (`.bin`, `.idx`), every tensor file
of checkpoints and exports, every number of metrics.jsonl that does not depend on the clock, and each
arm of the lab's results.json. Exits with 1 if anything differs. A refactoring must pass this; a change that is meant
to change results says so in its commit.

Both runs use the configs of this checkout. Cases whose corpora are missing are named and fail.
"""

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MNIST = Path(os.environ.get("CUVEE_TEST_DATA", ROOT.parent / "shared" / "data")) / "mnist"
COMPARED = re.compile("difference_from_|steps_less_|steps_to_|steps_interval")
CLOCK = {"tokens_per_second", "seconds", "peak_rss_bytes", "wall_seconds"}
# Each case with its arguments.
CASES = {
    "quickstart": ["train", "configs/quickstart.toml"],
    "eight-domains": ["train", "configs/eight-domains.toml", "--set", "train.steps=100"],
    "study-va-erma": [
        "train", "configs/studies/lm.toml",
        "--set", "mixture.sampling={ strategy = \"va\" }",
        "--set", "mixture.loss={ strategy = \"erma\", every = 50 }",
        "--set", "train.steps=200",
    ],
    "study-reference": [
        "train", "configs/studies/lm.toml", "--set", "train.engine=\"reference\"",
        "--set", "mixture.sampling={ strategy = \"va\", variance = \"sketch\", every = 5 }",
        "--set", "mixture.loss={ strategy = \"fgls\", every = 20 }",
        "--set", "train.steps=40",
    ],
    "lab-linear": ["lab", "linear", "--seeds", "40"],
    "lab-logistic": ["lab", "logistic", "--seeds", "20"],
    "lab-mnist": ["lab", "mnist", "--seeds", "1", "--data", str(MNIST)],
}


def run(binary: Path, case: str, folder: Path) -> None:
    """Runs one case; shards, run folder and findings go below `folder`."""
    arguments = list(CASES[case])
    if arguments[0] == "train":
        arguments += ["--set", "train.precision=\"f32\"", "--set", "checkpoint.keep=2"]
    environment = {**os.environ, "CUVEE_CACHE": str(folder / "cache")}
    command = [binary, *arguments, "--out", str(folder / "out"), "--quiet"]
    subprocess.run(command, cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL)


def timeless(value):
    """A JSON document without what depends on the clock or on where it was written."""
    if isinstance(value, dict):
        return {key: timeless(inner) for key, inner in value.items() if key not in CLOCK}
    if isinstance(value, list):
        return [timeless(inner) for inner in value]
    return value


def fingerprints(folder: Path) -> dict[str, str]:
    """What must be equal: hashes of binary files, and of the numbers in JSON files."""
    found = {}
    shards: dict[str, int] = {}
    for path in sorted(folder.rglob("*")):
        if not path.is_file():
            continue
        name = str(path.relative_to(folder))
        if path.suffix in (".bin", ".idx"):
            # The cache names a folder after everything that it was made with, so a shard is known
            # by its content.
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            key = f"shard {path.name} {digest}"
            shards[key] = shards.get(key, 0) + 1
        elif path.suffix == ".safetensors" or path.name == "tokenizer.json":
            if "cache" not in path.relative_to(folder).parts:
                found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        elif path.name == "metrics.jsonl":
            values = [timeless(json.loads(line)) for line in path.read_text().splitlines()]
            found[name] = hashlib.sha256(json.dumps(values).encode()).hexdigest()
        elif path.name == "results.json":
            for arm in json.loads(path.read_text())["arms"]:
                # What an arm is compared with is another arm's result.
                own = {key: value for key, value in arm.items() if not COMPARED.match(key)}
                digest = hashlib.sha256(json.dumps(own).encode()).hexdigest()
                found[f"{name} arm {arm['name']}"] = digest
    return found | {key: str(count) for key, count in shards.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--work", type=Path, help="keep the results here (default: thrown away)")
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES))
    arguments = parser.parse_args()
    differing = 0
    with tempfile.TemporaryDirectory() as scratch:
        work = (arguments.work or Path(scratch)).resolve()
        for case in arguments.only:
            results = []
            for which, binary in (("old", arguments.old), ("new", arguments.new)):
                folder = work / case / which
                folder.mkdir(parents=True, exist_ok=True)
                if not (folder / "done").exists():
                    run(binary.resolve(), case, folder)
                    (folder / "done").touch()
                results.append(fingerprints(folder))
            old, new = results
            wrong = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
            differing += len(wrong)
            print(f"{case}: {len(old)} results, {len(wrong)} differ", flush=True)
            for key in wrong:
                print(f"    {key}")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
