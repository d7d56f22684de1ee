#!/usr/bin/env python3
"""Training speed: Cuvee, PyTorch, burn and Candle on the same model, interleaved, into the table of docs/results.md.

    cargo build --release
    cargo build --release --manifest-path scripts/burn_step/Cargo.toml
    scripts/bench_train.py [--sizes s,m] [--rounds 3] [--steps 10] [--only cuvee-bf16,torch-compile-bf16,…]
                           [--isa avx2] [--torch-python PATH] [--burn PATH] [--json FILE] [--write]

Each round runs every program once, one after another, so that whatever else the machine does falls on all of them. A figure is
the median over the steps of all rounds; a ratio is that of the best PyTorch of the same precision to the program, above 1 where
the program is the faster one, with a 95 % interval from a bootstrap over rounds. Memory is the most each program's own process
held in any round. --isa holds Cuvee's engine fused and PyTorch to the same instructions, on any machine that has them. Prints the table in Markdown; --write also puts it between the markers of docs/results.md. Needs
the binary, and for the programs called torch-… a Python with PyTorch.
"""

import argparse
import datetime
import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
from pathlib import Path

from measure import ROOT, interval, machine, version_of, write_results

SIZES = ["xs", "s", "m", "l"]
# Name: (what the table calls it, precision, its own flags).
PROGRAMS = {
    "cuvee-bf16": ("Cuvee", "bf16", ["--engine", "fused"]),
    "torch-compile-bf16": ("PyTorch, compiled", "bf16", ["--mode", "compile"]),
    "torch-eager-bf16": ("PyTorch, eager", "bf16", ["--mode", "eager"]),
    "cuvee-f32": ("Cuvee", "f32", ["--engine", "fused"]),
    "torch-compile-f32": ("PyTorch, compiled", "f32", ["--mode", "compile"]),
    "torch-eager-f32": ("PyTorch, eager", "f32", ["--mode", "eager"]),
    "burn-f32": ("burn (flex)", "f32", []),
    "candle-f32": ("Candle (the reference engine)", "f32", ["--engine", "reference"]),
}
# Memory is kept instead of given back to the system between steps: PyTorch is 1.1 to 1.3 times
# faster with it.
TORCH_MALLOC = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "20000000000", "MALLOC_TOP_PAD_": "268435456"}
# Holds PyTorch's own kernels, oneDNN's and MKL's to an instruction set that Cuvee has too.
TORCH_ISA = {
    "avx2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"},
    "avx512": {"ATEN_CPU_CAPABILITY": "avx512", "ONEDNN_MAX_CPU_ISA": "AVX512_CORE", "MKL_ENABLE_INSTRUCTIONS": "AVX512"},
}


def run(name, size, given):
    """One program's steps in a process of its own; its JSON document."""
    _, precision, flags = PROGRAMS[name]
    environment = dict(os.environ)
    if name.startswith("torch"):
        command = [given.torch_python, str(ROOT / "scripts/torch_step.py")]
        environment |= TORCH_MALLOC | TORCH_ISA.get(given.isa, {})
    elif name.startswith("burn"):
        command = [given.burn]
    else:
        command = [given.cuvee, "bench", "train", "--json", "--quiet"]
        environment |= {"CUVEE_ISA": given.isa} if given.isa else {}
    command += ["--size", size, "--precision", precision, *flags]
    command += ["--threads", str(given.threads), "--steps", str(given.steps), "--warmup", str(given.warmup)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=False)
    if done.returncode != 0:
        sys.exit(f"error: {shlex.join(command)} ended with {done.returncode}\n"
                 f"hint: its message is above; --only can leave {name} out")
    return json.loads(done.stdout)


def steps_of(documents):
    """Every timed step of these rounds, in milliseconds."""
    return [ms for document in documents for ms in document["steps_ms"]]


def best_torch(rounds, precision, chosen):
    """The least median of PyTorch's modes at this precision, over the rounds of these indices; None without one."""
    modes = [name for name in rounds if name.startswith("torch") and PROGRAMS[name][1] == precision]
    return min((statistics.median(steps_of([rounds[name][i] for i in chosen])) for name in modes), default=None)


def ratio(rounds, name, chosen):
    """The best PyTorch's median over the program's own, over the rounds of these indices; None without PyTorch."""
    best = best_torch(rounds, PROGRAMS[name][1], chosen)
    return best and best / statistics.median(steps_of([rounds[name][i] for i in chosen]))


def ratio_interval(rounds, name):
    """The ratio over all rounds and its 95 % interval; whole rounds are resampled, the same ones for both programs."""
    count = len(rounds[name])
    value = ratio(rounds, name, range(count))
    return value, value and interval(count, lambda chosen: ratio(rounds, name, chosen))


def summarise(size, rounds):
    """A row a program: what its rounds say together. `rounds` maps a program to its documents."""
    rows = []
    for name, documents in rounds.items():
        median = statistics.median(steps_of(documents))
        value, interval = ratio_interval(rounds, name)
        memory = [d["peak_rss_bytes"] for d in documents if d["peak_rss_bytes"] is not None]
        rows.append({"size": size, "program": name, "precision": PROGRAMS[name][1], "median_ms": median,
                     "min_ms": min(steps_of(documents)), "tokens_per_second": 1e3 * documents[0]["tokens_per_step"] / median,
                     "ratio": value, "ratio_ci95": interval, "mfu": documents[0].get("mfu"),
                     "peak_rss_bytes": max(memory, default=None), "first_loss": documents[0]["first_loss"],
                     "last_loss": documents[0]["last_loss"], "rounds": documents})
    return rows


def table(rows):
    """The rows in Markdown."""
    lines = ["| size | program | | ms a step: median (least) | tokens/s | × best PyTorch (95 %) | peak memory | loss |",
             "| --- | --- | --- | --- | --- | --- | --- | --- |"]
    for row in rows:
        times = "–" if row["ratio"] is None else f"{row['ratio']:.2f}"
        if row["ratio_ci95"]:
            times += " ({:.2f} to {:.2f})".format(*row["ratio_ci95"])
        memory = "–" if row["peak_rss_bytes"] is None else f"{row['peak_rss_bytes'] / 1e6:,.0f} MB"
        lines.append(f"| {row['size'].upper()} | {PROGRAMS[row['program']][0]} | {row['precision']} "
                     f"| {row['median_ms']:.1f} ({row['min_ms']:.1f}) | {row['tokens_per_second']:,.0f} | {times} | {memory} "
                     f"| {row['first_loss']:.3f} → {row['last_loss']:.3f} |")
    return "\n".join(lines)


def read_arguments():
    """The arguments, known to make sense together."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="s,m", help=f"of {', '.join(SIZES)}")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=10, help="timed steps a round")
    parser.add_argument("--warmup", type=int, default=3, help="steps before them")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--only", default=",".join(PROGRAMS), help=f"of {', '.join(PROGRAMS)}")
    parser.add_argument("--isa", choices=TORCH_ISA, help="instruction set of Cuvee and PyTorch (default: each one's choice)")
    parser.add_argument("--cuvee", default=str(ROOT / "target/release/cuvee"), help="the binary")
    parser.add_argument("--burn", default=str(ROOT / "scripts/burn_step/target/release/burn_step"), metavar="PATH",
                        help="the program of scripts/burn_step")
    parser.add_argument("--torch-python", default="python3", metavar="PATH", help="a Python that has PyTorch")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure there")
    parser.add_argument("--write", action="store_true", help="put the table into docs/results.md")
    given = parser.parse_args()
    for key, known in (("sizes", SIZES), ("only", list(PROGRAMS))):
        names = [name.strip().lower() for name in getattr(given, key).split(",")]
        wrong = [name for name in names if name not in known]
        if wrong or len(set(names)) < len(names):
            parser.error(f"--{key}: expected each of some of {', '.join(known)} once, found {', '.join(wrong or names)}")
        setattr(given, key, names)
    for key, least in (("rounds", 1), ("steps", 1), ("warmup", 0), ("threads", 1)):
        if getattr(given, key) < least:
            parser.error(f"--{key}: expected at least {least}, found {getattr(given, key)}")
    return parser, given


def main():
    parser, given = read_arguments()
    versions = []
    if any(name.startswith(("cuvee", "candle")) for name in given.only):
        version, found = version_of([given.cuvee, "--version"])
        if version is None:
            parser.error(f"--cuvee: expected the binary at {given.cuvee}, found: {found}\nhint: cargo build --release")
        versions.append(version)
    if any(name.startswith("torch") for name in given.only):
        version, found = version_of([given.torch_python, "-c", "import torch; print('PyTorch', torch.__version__)"])
        if version is None:
            parser.error(f"--torch-python: expected a Python with PyTorch at {given.torch_python}, found: {found}\n"
                         "hint: python3 -m venv v && v/bin/pip install torch, then --torch-python v/bin/python")
        versions.append(version)
    if any(name.startswith("burn") for name in given.only):
        version, found = version_of([given.burn, "--version"])
        if version is None:
            parser.error(f"--burn: expected the program at {given.burn}, found: {found}\n"
                         "hint: cargo build --release --manifest-path scripts/burn_step/Cargo.toml, or leave it out with --only")
        versions.append(version)

    rows = []
    for size in given.sizes:
        rounds = {name: [] for name in given.only}
        for number in range(given.rounds):
            for name in given.only:
                document = run(name, size, given)
                rounds[name].append(document)
                print(f"{size}  round {number + 1}/{given.rounds}  {name}: {document['median_ms']:.1f} ms a step",
                      file=sys.stderr, flush=True)
        rows += summarise(size, rounds)

    today = datetime.date.today().isoformat()
    command = f"scripts/bench_train.py --sizes {','.join(given.sizes)} --rounds {given.rounds} --steps {given.steps}"
    if given.isa:
        command += f" --isa {given.isa}"
    if given.only != list(PROGRAMS):
        command += f" --only {','.join(given.only)}"
    heading = (f"`{command}`, {today}. {machine()}; {given.threads} threads; {', '.join(versions)}; "
               f"Python {platform.python_version()}, {platform.system()} {platform.release()}.")
    text = f"{heading}\n\n{table(rows)}"
    print(text)
    if given.json:
        given.json.write_text(json.dumps({"heading": heading, "rows": rows}, indent=2) + "\n", encoding="utf-8")
    if given.write:
        write_results("bench_train", text)


if __name__ == "__main__":
    main()
