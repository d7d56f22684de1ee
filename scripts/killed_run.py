"""A small training run on this repository's own texts that is killed and resumed, for the scripts that read what it wrote."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STEPS, CHECKPOINT = 600, 200
CONFIG = f"""
seed = 1
[tokenizer]
train = {{ vocab_size = 500 }}
[[domain]]
name = "docs/\\"guide\\""
source = {{ path = "{ROOT}/docs/*.md", format = "txt", max_document = 2000 }}
[[domain]]
name = "scripts, \\u00e4\\u007f"
source = {{ path = "{ROOT}/scripts/*.py", format = "txt", max_document = 2000 }}
# These texts are few: every split must have some of them.
[data]
split = {{ valid = 0.15, tune = 0.15 }}
[mixture]
objective = "importance"
sampling = "va"
loss = {{ strategy = "erma", every = 20 }}
[model]
preset = "xs"
[train]
steps = {STEPS}
batch_size = 4
context = 32
[eval]
every = 70
sequences = 4
tune_sequences = 4
[checkpoint]
every = {CHECKPOINT}
"""


def find_cuvee():
    """The binary of this checkout, the fastest first, else the one on the PATH."""
    built = [ROOT / "target" / profile / "cuvee" for profile in ("release", "debug")]
    return next((str(path) for path in built if path.is_file()), shutil.which("cuvee"))


def steps_in(run):
    """Steps in the metrics log so far; a last line may be half written."""
    log = run / "metrics.jsonl"
    return log.read_text().count('"kind":"step"') if log.exists() else 0


def make(cuvee, folder, *settings, flags=(), killed=True):
    """Trains in `folder`/run, killed behind the second checkpoint and resumed, or not; returns that folder."""
    run, config = folder / "run", folder / "config.toml"
    config.write_text(CONFIG)
    command = [cuvee, "train", str(config), "--out", str(run), "--quiet", *flags]
    command += [word for setting in settings for word in ("--set", setting)]
    environment = {**os.environ, "CUVEE_CACHE": str(folder / "cache")}
    if not killed:
        subprocess.run(command, env=environment, check=True)
        return run
    child = subprocess.Popen(command, env=environment)
    while child.poll() is None and steps_in(run) < 2 * CHECKPOINT + 70:
        time.sleep(0.001)
    child.send_signal(signal.SIGKILL)
    child.wait()
    killed_at = steps_in(run)
    subprocess.run([*command, "--resume"], env=environment, check=True)
    if not killed_at < STEPS == steps_in(run):
        sys.exit(f"{run}: killed after {killed_at} steps and then {steps_in(run)}: expected fewer than {STEPS}, then {STEPS}")
    print(f"a run of {STEPS} steps, killed after {killed_at} and resumed")
    return run


def records(run):
    """The metrics log."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def numbers(run, printable):
    """What the log says other programs are told, by name and step. `printable` mends a domain's name."""
    step_keys = ["loss", "lr", "gradient_norm", "clip_factor", "tokens_per_second", "headroom"]
    domain_keys = ["loss", "sampling_weight", "loss_weight", "loss_weight_error", "multiplier", "epochs",
                   "gradient_deviation", "objective_mean"]
    eval_keys = ["loss", "bits_per_byte", "perplexity"]
    told = {}
    for record in records(run):
        split = record.get("split")
        own, keys = (step_keys, domain_keys) if split is None else (["mean_loss"], eval_keys)
        prefix = "train" if split is None else f"eval/{split}"
        parts = [(prefix, own, record)]
        for name, domain in record["domains"].items():
            group = "domain" if split is None else prefix
            parts.append((f"{group}/{printable(name)}", keys, domain))
        for group, keys, values in parts:
            for key in keys:
                if values.get(key) is not None:
                    told[f"{group}/{key}", record["step"]] = values[key]
    return told


def printable(name):
    """A name as it is shown: what would act on a terminal is written as an escape."""
    return "".join(f"\\u{{{ord(c):x}}}" if ord(c) < 32 or 127 <= ord(c) < 160 else c for c in name)


def differences(found, expected, close):
    """The names and steps in which two sets of numbers differ, in words."""
    problems = [f"{name} at step {step}: missing" for name, step in sorted(expected.keys() - found.keys())]
    problems += [f"{name} at step {step}: not in metrics.jsonl" for name, step in sorted(found.keys() - expected.keys())]
    for key in sorted(found.keys() & expected.keys()):
        if not close(found[key], expected[key]):
            problems.append(f"{key[0]} at step {key[1]}: {found[key]}, in metrics.jsonl {expected[key]}")
    return problems


def finish(problems, compared):
    """Prints the outcome; the exit status."""
    for problem in problems[:20]:
        print(f"FAILED {problem}", file=sys.stderr)
    print(f"failed: {len(problems)} problems" if problems else f"all {compared} numbers equal, each once")
    return 1 if problems else 0
