#!/usr/bin/env python3
"""What scripts/gpu_check.sh runs: parity with the processor, bits, resume, and speed beside PyTorch, on this machine's GPU.

    scripts/gpu_check.py --cuvee PATH [--python PATH] [--device cuda:0] [--size l] [--minutes 7.5]

Parity compares the first and the last loss of 20 steps on the GPU with those of the processor, in f32 and bf16, for each way a
model and its training can be. Speed interleaves `cuvee bench train` with scripts/torch_step.py, compiled, round after round
until the time is used up. The table is printed last. Exit status 0 if all holds, 1 if not; a ratio below 1 is no failure.
"""

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import killed_run
from measure import version_of

ROOT = Path(__file__).resolve().parent.parent
# Relative differences of losses: sums in another order; and with operands of 8 bits beside.
BOUNDS = {"f32": 2e-4, "bf16": 2e-2}
# Ways a model and its training can be, beside the plain one.
WAYS = {
    "plain": [],
    "grouped heads": ["--set", "model.heads=4", "--set", "model.kv_heads=2"],
    "QK-norm": ["--set", "model.qk_norm=true"],
    "biases": ["--set", "model.qkv_bias=true"],
    "untied": ["--set", "model.tied=false"],
    "odd lengths": ["--batch", "3", "--context", "77", "--vocab", "301", "--set", "train.micro_batch=2"],
    "z-loss, clipped": ["--set", "train.z_loss=1e-3", "--set", "train.clip=0.5"],
    "Muon": ["--optimizer", "muon"],
    "SGD": ["--optimizer", "sgd"],
    "norm-layers": ["--collect", "norm-layers"],
    "exact": ["--collect", "exact"],
}
ROUNDS = 3
STEPS = 20
# Of one H200 in bf16, by its data sheet, in FLOP/s: what others' MFU is a share of.
DATA_SHEET = {"NVIDIA H200": 989e12, "NVIDIA H100 80GB HBM3": 989e12, "NVIDIA A100-SXM4-80GB": 312e12}


def document(command):
    """The JSON document that a command prints; None, with its message, if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        print(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr.strip()}", file=sys.stderr)
        return None
    return json.loads(done.stdout)


class Check:
    """The commands, and what went wrong so far."""

    def __init__(self, given):
        self.given, self.problems, self.begun = given, [], time.monotonic()

    def left(self):
        """Seconds of the time that was given."""
        return 60 * self.given.minutes - (time.monotonic() - self.begun)

    def bench(self, size, precision, device, steps, *flags):
        """`cuvee bench train`'s document."""
        return document([
            self.given.cuvee, "bench", "train", "--json", "--quiet", "--engine", "fused", "--size", size, "--precision", precision,
            "--device", device, "--steps", str(steps - 2), "--warmup", "2", *flags,
        ])

    def fail(self, problem):
        print(f"FAILED {problem}")
        self.problems.append(problem)

    def parity(self):
        """Losses on the GPU are the processor's."""
        for size, way, flags in [("xs", way, flags) for way, flags in WAYS.items()] + [("s", "plain", [])]:
            for precision, bound in BOUNDS.items():
                here, there = (self.bench(size, precision, d, STEPS, *flags) for d in ("cpu", self.given.device))
                if here is None or there is None:
                    self.fail(f"{size}, {way}, {precision}: no losses")
                    continue
                apart = max(abs(there[key] / here[key] - 1) for key in ("first_loss", "last_loss"))
                words = f"{size}, {way}, {precision}: loss {there['last_loss']:.6f}, {here['last_loss']:.6f} on the processor"
                print(f"{words}, {apart:.1e} apart")
                # Not a number fails too.
                if not apart <= bound:
                    self.fail(f"{words}: {apart:.1e} apart, at most {bound:.0e}")

    def same_bits(self):
        """The same steps have the same bits again."""
        for precision in BOUNDS:
            losses = [(self.bench("s", precision, self.given.device, STEPS) or {}).get("last_loss") for _ in range(2)]
            print(f"s, {precision}, twice: {losses}")
            if losses[0] is None or losses[0] != losses[1]:
                self.fail(f"s, {precision}: other bits the second time: {losses}")

    def resume(self):
        """A run that is killed and resumed is the run that is not, in each number and in each bit of the model."""
        told = []
        for killed in (True, False):
            with tempfile.TemporaryDirectory() as folder:
                flags = ["--device", self.given.device]
                run = killed_run.make(self.given.cuvee, Path(folder), flags=flags, killed=killed)
                model = hashlib.sha256((run / "export/model.safetensors").read_bytes()).hexdigest()
                numbers = killed_run.numbers(run, str)
                told.append((model, {key: n for key, n in numbers.items() if "per_second" not in key[0]}))
        if told[0] != told[1]:
            self.fail("a run that was killed and resumed is not the run that was not")

    def speed(self):
        """Documents of the program and of PyTorch, round after round."""
        size, found = self.given.size, {"Cuvee": [], "PyTorch, compiled": []}
        torch = [
            self.given.python, str(ROOT / "scripts/torch_step.py"), "--size", size, "--mode", "compile", "--precision", "bf16",
            "--device", "cuda", "--steps", str(STEPS), "--warmup", "5",
        ]
        for _ in range(ROUNDS):
            begun = time.monotonic()
            for name, made in (("PyTorch, compiled", document(torch)),
                               ("Cuvee", self.bench(size, "bf16", self.given.device, STEPS + 2))):
                if made is None:
                    self.fail(f"{name}: no figures at size {size}")
                else:
                    found[name].append(made)
            if self.left() < 1.2 * (time.monotonic() - begun):
                break
        return found

    def profile(self):
        """Each kernel's share of a step."""
        command = [self.given.cuvee, "bench", "train", "--engine", "fused", "--size", self.given.size, "--precision", "bf16"]
        command += ["--device", self.given.device, "--profile", "--steps", "10"]
        subprocess.run(command, check=False)


def table(found):
    """What each program takes for a step, as Markdown; ratios are PyTorch's median to the program's."""
    lines = ["| program | ms a step | tokens/s | FLOP/s | of the data sheet | GPU's memory | ratio |", "| --- | --- | --- | --- | --- | --- | --- |"]
    medians = {name: statistics.median(ms for d in rounds for ms in d["steps_ms"]) for name, rounds in found.items() if rounds}
    names, _ = version_of(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"])
    sheet = DATA_SHEET.get(names.splitlines()[0] if names else None)
    flops = next((d["flops_per_step"] for d in found["Cuvee"]), None)
    for program, median in medians.items():
        rounds = found[program]
        rate = flops and 1e3 * flops / median
        memory = max((d["peak_device_bytes"] or 0 for d in rounds))
        against = medians.get("PyTorch, compiled")
        lines.append(
            f"| {program} | {median:.2f} | {1e3 * rounds[0]['tokens_per_step'] / median:,.0f} | {rate / 1e12 if rate else 0:.0f} T"
            f" | {f'{100 * rate / sheet:.1f} %' if rate and sheet else '–'} | {memory / 1e9:.2f} GB"
            f" | {f'{against / median:.2f}' if against else '–'} |"
        )
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cuvee", default=killed_run.find_cuvee())
    parser.add_argument("--python", default=sys.executable, help="a Python with PyTorch for CUDA")
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--size", default="l", help="of the measurement")
    parser.add_argument("--minutes", type=float, default=7.5, help="after which no round begins")
    check = Check(parser.parse_args())
    check.given.cuvee = os.path.abspath(check.given.cuvee)
    parts, found = {}, {"Cuvee": []}
    for name in ("parity", "same_bits", "resume", "speed", "profile"):
        begun = time.monotonic()
        try:
            found = getattr(check, name)() or found
        except (OSError, subprocess.CalledProcessError, SystemExit) as error:
            # The other parts go on.
            check.fail(f"{name}: {error}")
        parts[name] = time.monotonic() - begun
        print(f"-- {name}: {parts[name]:.0f} s", flush=True)
    print(table(found))
    for problem in check.problems:
        print(f"FAILED {problem}")
    print(f"{sum(parts.values()):.0f} s; " + (f"failed: {len(check.problems)} problems" if check.problems else "all holds"))
    return 1 if check.problems else 0


if __name__ == "__main__":
    sys.exit(main())
