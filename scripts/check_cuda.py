#!/usr/bin/env python3
"""Compiles every CUDA kernel as the program does, for three generations of GPUs and with none at hand.

    python3 scripts/check_cuda.py [--venv FOLDER] [--only NAME …] [--write docs/gpu.md]

NVIDIA's compiler NVRTC comes from PyPI (90 MB) into a virtual environment, FOLDER or a temporary one. Fails on what does not
compile, on a kernel that spills registers to memory, and on one that is launched and not there, or there and not launched.
Prints what each kernel takes; --write puts the table between the marks of a page. Exit status 0 if all holds, 1 if not.
"""

import argparse
import ctypes
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

NVRTC = "nvidia-cuda-nvrtc==13.5.37"
ARCHITECTURES = ["sm_80", "sm_90", "sm_120"]
KERNELS = Path(__file__).resolve().parent.parent / "crates" / "kernels"
MARKS = "<!-- kernels -->", "<!-- end of kernels -->"


def options():
    """The options that the program compiles with."""
    text = (KERNELS / "src/cuda/gpu/compile.rs").read_text()
    found = re.search(r"const OPTIONS: \[&str; (\d+)\] = \[(.*?)\];", text, re.S)
    names = re.findall(r'"([^"]*)"', found[2])
    assert len(names) == int(found[1]), names
    return names


def library(venv):
    """NVRTC, installed if it is not there."""
    if not (venv / "bin").exists():
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    pattern = "lib/python3*/site-packages/nvidia/*/lib/libnvrtc.so.*"
    if not list(venv.glob(pattern)):
        pip = [venv / "bin/pip", "install", "--quiet", "--disable-pip-version-check", NVRTC]
        subprocess.run(pip, check=True)
    return ctypes.CDLL(str(next(path for path in venv.glob(pattern) if ".alt." not in path.name)))


def compiled(nvrtc, source, headers, architecture):
    """Whether a source compiles, and what the compiler says."""
    def strings(texts):
        return (ctypes.c_char_p * len(texts))(*texts)

    program, size = ctypes.c_void_p(), ctypes.c_size_t()
    names = [header.name.encode() for header in headers]
    texts = [header.read_bytes() for header in headers]
    made = nvrtc.nvrtcCreateProgram(
        ctypes.byref(program), source.read_bytes(), source.name.encode(),
        len(headers), strings(texts), strings(names),
    )
    assert made == 0, made
    flags = [*options(), f"--gpu-architecture={architecture}", "--ptxas-options=-v"]
    done = nvrtc.nvrtcCompileProgram(program, len(flags), strings([flag.encode() for flag in flags]))
    nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    nvrtc.nvrtcGetProgramLog(program, log)
    nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    return done == 0, log.value.decode()


def figures(log):
    """Of each kernel: registers, bytes of static shared memory, and bytes spilled."""
    found = {}
    for part in re.split(r"Compiling entry function ", log)[1:]:
        name = re.match(r"'(\w+)'", part)[1]
        registers = int(re.search(r"Used (\d+) registers", part)[1])
        shared = re.search(r"(\d+) bytes smem", part)
        spills = [int(n) for n in re.findall(r"(\d+) bytes spill (?:stores|loads)", part)]
        found[name] = registers, int(shared[1]) if shared else 0, sum(spills)
    return found


def launched():
    """Every word in quotes where kernels are launched, and the kernels that are named with their source."""
    words, named = set(), set()
    for path in (KERNELS / "src/cuda").glob("*.rs"):
        text = path.read_text().split("#[cfg(test)]")[0]
        words.update(re.findall(r'"(\w+)"', text))
        for file, *names in re.findall(r'Typed::new\(\s*"(\w+)",\s*"(\w+)",\s*"(\w+)"', text):
            named.update((file, name) for name in names)
        named.update(re.findall(r'file: "(\w+)",\s*name: "(\w+)"', text))
    return words, named


def table(rows):
    """What each kernel takes, as Markdown."""
    lines = [
        f"| source | kernel | registers: {', '.join(ARCHITECTURES)} | static shared bytes |",
        "| --- | --- | --- | --- |",
    ]
    for file, name, taken in rows:
        registers = ", ".join(str(taken[a][0]) if a in taken else "–" for a in ARCHITECTURES)
        shared = max(figure[1] for figure in taken.values())
        lines.append(f"| `{file}` | `{name}` | {registers} | {shared:,} |")
    return "\n".join(lines)


def write(page, text):
    """Puts the table between the page's marks."""
    old = page.read_text()
    before, rest = old.split(MARKS[0], 1)
    after = rest.split(MARKS[1], 1)[1]
    page.write_text(f"{before}{MARKS[0]}\n{text}\n{MARKS[1]}{after}")


def check(nvrtc, only):
    """Problems, and a row for each kernel."""
    headers = sorted((KERNELS / "cuda").glob("*.h"))
    sources = sorted(s for s in (KERNELS / "cuda").glob("*.cu") if not only or s.stem in only)
    jobs = [(source, architecture) for source in sources for architecture in ARCHITECTURES]
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda job: compiled(nvrtc, job[0], headers, job[1]), jobs))
    problems, taken = [], {}
    for (source, architecture), (done, log) in zip(jobs, answers):
        if not done:
            problems.append(f"{source.name} for {architecture} does not compile:\n{log.strip()}")
            continue
        kernels = figures(log)
        if not kernels:
            problems.append(f"{source.name} for {architecture}: no kernel")
        for name, figure in kernels.items():
            taken.setdefault((source.stem, name), {})[architecture] = figure
            if figure[2]:
                problems.append(f"{name} for {architecture}: {figure[2]} bytes are spilled")
    words, named = launched()
    names = [name for _, name in taken]
    problems += [f"{name} is in {names.count(name)} sources" for name in sorted(set(names)) if names.count(name) > 1]
    problems += [f"{name} of {file}.cu is launched by nobody" for file, name in sorted(taken) if name not in words]
    broken = {source.stem for (source, _), (done, _) in zip(jobs, answers) if not done}
    present = {source.stem for source in sources} - broken
    missing = sorted((file, name) for file, name in named - set(taken) if file in present or not only and file not in broken)
    problems += [f"{file}.cu has no kernel {name}, which is launched" for file, name in missing]
    return problems, [(file, name, taken[file, name]) for file, name in sorted(taken)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--venv", type=Path, help="where NVRTC is, or is to be; default: a temporary folder")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="these sources, without .cu")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="the page whose table is written anew")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        problems, rows = check(library(args.venv or Path(temporary) / "venv"), args.only)
    text = table(rows)
    print(text)
    if args.write:
        write(args.write, text)
    for problem in problems:
        print(f"problem: {problem}", file=sys.stderr)
    print(f"{len(rows)} kernels for {', '.join(ARCHITECTURES)}; {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
