"""What the benchmark scripts share: the machine in words, intervals over rounds, tables between markers of docs/results.md."""

import os
import platform
import random
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "docs/results.md"
RESAMPLES = 2000


def version_of(command):
    """What a command prints, None if it fails; and the last line of what went wrong."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        return None, str(error)
    if done.returncode != 0:
        return None, (done.stderr.strip().splitlines() or ["nothing"])[-1]
    return done.stdout.strip(), ""


def machine():
    """The processor, its cores and memory, and whether it multiplies bf16."""
    model, flags = platform.processor() or platform.machine(), []
    try:
        info = dict(line.split(":", 1) for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if ":" in line)
        info = {key.strip(): value.strip() for key, value in info.items()}
        model, flags = info.get("model name", model), info.get("flags", "").split()
    except OSError:
        pass
    wide = [name for flag, name in (("avx2", "AVX2"), ("avx512f", "AVX-512"), ("avx512_bf16", "AVX512-BF16"),
                                    ("amx_bf16", "AMX-BF16")) if flag in flags]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{model} with {', '.join(wide) or 'no wide vectors known'}; {os.cpu_count()} cores, {memory:.0f} GiB"


def interval(count, value):
    """A 95 % interval of `value(chosen rounds)` by resampling whole rounds, of which there are `count`; None for fewer than two."""
    if count < 2:
        return None
    generator = random.Random(0)
    resampled = sorted(value(generator.choices(range(count), k=count)) for _ in range(RESAMPLES))
    return resampled[int(0.025 * RESAMPLES)], resampled[int(0.975 * RESAMPLES) - 1]


def write_results(name, text):
    """Puts the text between the markers of this name in docs/results.md."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    page = RESULTS.read_text(encoding="utf-8")
    if page.count(begin) != 1 or page.count(end) != 1 or page.index(begin) > page.index(end):
        sys.exit(f"error: {RESULTS}: expected the lines {begin} and {end} once each, in this order\nhint: put them back")
    before, rest = page.split(begin)
    RESULTS.write_text(f"{before}{begin}\n{text}\n{end}{rest.split(end)[1]}", encoding="utf-8")
