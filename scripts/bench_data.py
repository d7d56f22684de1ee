#!/usr/bin/env python3
"""Data at speed: Cuvee beside its peers at tokenizing, from JSON lines to shards, and at loading, into the tables of docs/results.md.

    cargo build --release
    python3 -m venv v && v/bin/pip install torch megatron-core "datatrove[io,processing]" mosaicml-streaming litdata
    python3 -m venv w && w/bin/pip install "tokenizers==0.23.*" gigatoken numpy        # datatrove wants an older tokenizers
    scripts/bench_data.py --peers-python v/bin/python --tokenizers-python w/bin/python \\
        --text ../shared/data/*/*.jsonl --tokenizer ../shared/data/tokenizers/gpt2/tokenizer.json [--rounds 3] [--json FILE] [--write]

Each round runs every program once (scripts/data_peer.py), each in a process of its own, one after another, so that whatever else
the machine does falls on all of them. Tokenizing, of which a quick pass takes a tenth of a second, has five times as many. A figure is the
median over rounds; a ratio is Cuvee's rate over the program's, above 1 where Cuvee is the faster one, with a 95 % interval from a
bootstrap over rounds. Ids are compared: gigatoken's with those of `tokenizers`, and the documents of the shards of all three pipelines
with one another. A program that fails is in the caption with its error.
"""

import argparse
import datetime
import json
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measure import ROOT, interval, machine, version_of, write_results

PEER = ROOT / "scripts/data_peer.py"
# Rounds of tokenizing for each of the others.
TOKENIZE_ROUNDS = 5
# What the tables call them, in their order; the first is Cuvee.
TOKENIZE = {"cuvee": "Cuvee", "gigatoken": "gigatoken", "tokenizers": "`tokenizers`, `encode_batch_fast`"}
PREPARE = {"cuvee": "Cuvee, `prepare`", "megatron_prepare": "as Megatron-LM's `preprocess_data`, 2 workers",
           "datatrove_prepare": "datatrove, `DocumentTokenizer`, 2 workers"}
LOAD = {"cuvee": "Cuvee", "megatron_load": "megatron-core, blended `GPTDataset`", "mosaic_load": "mosaicml-streaming",
        "litdata_load": "litdata"}
CONFIG = """
[tokenizer]
file = {tokenizer}
[[domain]]
name = "text"
source = {{ path = {text} }}
"""


class Failed(Exception):
    """A program that could not be measured, with the last line it said."""


def run(command):
    """A program's JSON document."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Failed((done.stderr.strip().splitlines() or ["nothing"])[-1])
    return json.loads(done.stdout if done.stdout.lstrip().startswith("{\n") else done.stdout.strip().splitlines()[-1])


def peer(name, given, out):
    """One of scripts/data_peer.py's programs."""
    python = given.tokenizers_python if name in TOKENIZE else given.peers_python
    request = {"text": given.text, "tokenizer": given.tokenizer, "passes": given.passes, "end_of_text": given.end_of_text,
               "out": str(out), "shards": str(out / "shards/text"), "tokens": given.tokens, "samples": given.samples}
    return run([python, PEER, name, json.dumps(request)])


def tokenize(name, given, out):
    if name != "cuvee":
        return peer(name, given, out)
    found = run([given.cuvee, "bench", "tokenize", "--json", "--quiet", "--tokenizer", given.tokenizer, "--threads", 2,
                 "--passes", given.passes, "--text", *given.text])
    return {"seconds": [ms / 1e3 for ms in found["passes_ms"]], "tokens": found["tokens"]}


def prepare(name, given, out):
    if name != "cuvee":
        return peer(name, given, out)
    config = out / "config.toml"
    config.write_text(CONFIG.format(tokenizer=json.dumps(given.tokenizer), text=json.dumps(given.text)), encoding="utf-8")
    start = time.perf_counter()
    run([given.cuvee, "prepare", config, "--out", out / "shards", "--json", "--quiet"])
    seconds = time.perf_counter() - start
    return {"seconds": [seconds], "digest": peer("shards_digest", given, out)["digest"]}


def load(name, given, out):
    if name != "cuvee":
        return peer(name, given, out)
    return run([given.cuvee, "bench", "load", "--json", "--quiet", "--tokens", given.tokens])


def measure(what, names, work, count, given, failures):
    """Documents of `count` rounds by program; programs that fail leave with a line in `failures`."""
    rounds = {name: [] for name in names if name not in given.without}
    for number in range(count):
        for name in list(rounds):
            with tempfile.TemporaryDirectory(dir=given.scratch) as out:
                try:
                    rounds[name].append(work(name, given, Path(out)))
                    print(f"{what}  round {number + 1}/{count}  {name}: {rounds[name][-1]}"[:300], file=sys.stderr, flush=True)
                except Failed as error:
                    if name == "cuvee":
                        sys.exit(f"error: {what}: Cuvee failed: {error}")
                    failures.append(f"{names[name]} could not be measured: `{error}`")
                    del rounds[name]
    return rounds


def ratio_cell(rounds, name, rate):
    """Cuvee's median rate over the program's, with its interval."""
    def value(chosen):
        mine = statistics.median(rate(rounds["cuvee"][i]) for i in chosen)
        return mine / statistics.median(rate(rounds[name][i]) for i in chosen)
    count = len(rounds[name])
    between = interval(count, value)
    return f"{value(range(count)):.2f}" + (f" ({between[0]:.2f} to {between[1]:.2f})" if between else "")


def median_of(rounds, name, rate):
    return statistics.median(rate(document) for document in rounds[name])


def same(rounds, key):
    """Whether all programs agree on a figure in all rounds."""
    return len({document[key] for documents in rounds.values() for document in documents if key in document}) == 1


def tokenize_table(rounds, size):
    first = lambda document: size / 1e6 / document["seconds"][0]
    later = lambda document: size / 1e6 / statistics.median(document["seconds"][1:])
    lines = ["| tokenizing in memory | first pass, MB/s | Cuvee × (95 %) | later passes, MB/s | Cuvee × |", "| --- | --- | --- | --- | --- |"]
    for name in rounds:
        again = len(rounds[name][0]["seconds"]) > 1
        # A program that remembers nothing has one figure for all passes.
        cells = [f"{median_of(rounds, name, later if again else first):.1f}"]
        cells.append(f"{median_of(rounds, 'cuvee', later) / median_of(rounds, name, later if again else first):.2f}")
        lines.append(f"| {TOKENIZE[name]} | {median_of(rounds, name, first):.1f} | {ratio_cell(rounds, name, first)} | {' | '.join(cells)} |")
    return lines


def prepare_table(rounds, size):
    rate = lambda document: size / 1e6 / document["seconds"][0]
    lines = ["| JSON lines to shards | MB/s of text | Cuvee × (95 %) |", "| --- | --- | --- |"]
    return lines + [f"| {PREPARE[name]} | {median_of(rounds, name, rate):.1f} | {ratio_cell(rounds, name, rate)} |" for name in rounds]


def load_table(rounds, given):
    rate = lambda document: document["tokens_per_second"]
    lines = ["| loading | tokens | first batch, ms | again, ms | tokens/s | Cuvee × (95 %) |", "| --- | --- | --- | --- | --- | --- |"]
    for name in rounds:
        first = median_of(rounds, name, lambda d: d["first_batch_ms"])
        again = "–" if rounds[name][0].get("again_ms") is None else f"{median_of(rounds, name, lambda d: d['again_ms']):,.1f}"
        tokens = given.tokens if name in ("cuvee", "megatron_load") else given.samples * 2048
        lines.append(f"| {LOAD[name]} | {tokens:,} | {first:,.2f} | {again} | {median_of(rounds, name, rate) / 1e6:,.0f}M "
                     f"| {ratio_cell(rounds, name, rate)} |")
    return lines


def read_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", nargs="+", required=True, metavar="FILE", help="JSON lines with a column `text`")
    parser.add_argument("--tokenizer", required=True, metavar="FILE", help="GPT-2's tokenizer.json")
    parser.add_argument("--cuvee", default=str(ROOT / "target/release/cuvee"), help="the binary")
    parser.add_argument("--peers-python", default="python3", metavar="PATH", help="a Python with the peers")
    parser.add_argument("--tokenizers-python", default="python3", metavar="PATH", help="a Python with tokenizers 0.23 and gigatoken")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--passes", type=int, default=3, help="over the text, for what remembers words")
    parser.add_argument("--copies", type=int, default=4, help="of each document where shards are made, which is over too soon otherwise")
    parser.add_argument("--end-of-text", type=int, default=50256)
    parser.add_argument("--tokens", type=int, default=1_000_000_000, help="of the mixture that is loaded")
    parser.add_argument("--samples", type=int, default=20_480, help="of 2,048 tokens, for peers whose format cannot be sparse")
    parser.add_argument("--without", nargs="*", default=[], metavar="NAME", help="programs to leave out")
    parser.add_argument("--scratch", metavar="DIR", help="where temporary folders go (default: the system's)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure there")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/results.md")
    given = parser.parse_args()
    if given.rounds < 1 or given.passes < 2 or given.copies < 1:
        parser.error("expected at least 1 round of at least 2 passes, and 1 copy")
    given.text = [str(Path(path).resolve()) for path in given.text]
    given.tokenizer = str(Path(given.tokenizer).resolve())
    version, found = version_of([given.cuvee, "--version"])
    if version is None:
        parser.error(f"--cuvee: expected the binary at {given.cuvee}, found: {found}\nhint: cargo build --release")
    return given, version


def versions_of(python, packages):
    code = "import importlib.metadata as m, sys\nfor p in sys.argv[1:]:\n try: print(p, m.version(p), end=', ')\n except Exception: pass"
    return (version_of([python, "-c", code, *packages])[0] or "").rstrip(", ")


def write_copies(files, copies):
    """Makes each document of JSON lines `copies` documents, numbered so that they differ; the bytes of their texts."""
    size = 0
    for file in files:
        documents = [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line]
        with open(file, "w", encoding="utf-8") as out:
            for number in range(copies):
                for document in documents:
                    text = f"{number}\n{document['text']}"
                    size += len(text.encode())
                    out.write(json.dumps({**document, "text": text}, ensure_ascii=False) + "\n")
    return size


def main():
    given, version = read_arguments()
    # Lines end at \n alone: other line ends of Unicode stand within strings.
    lines = (line for path in given.text for line in Path(path).read_text(encoding="utf-8").split("\n"))
    texts = [json.loads(line)["text"] for line in lines if line]
    size = sum(len(text.encode()) for text in texts)
    failures = []
    # Datatrove reads a folder: the files, by names that do not collide.
    with tempfile.TemporaryDirectory(dir=given.scratch) as folder:
        copies = [Path(folder) / f"{i:02}-{Path(path).name}" for i, path in enumerate(given.text)]
        for path, copy in zip(given.text, copies):
            shutil.copy(path, copy)
        given.text = [str(copy) for copy in copies]
        tokenized = measure("tokenize", TOKENIZE, tokenize, TOKENIZE_ROUNDS * given.rounds, given, failures)
        prepared_size = write_copies(copies, given.copies)
        prepared = measure("prepare", PREPARE, prepare, given.rounds, given, failures)
        loaded = measure("load", LOAD, load, given.rounds, given, failures)
    equal = [f"numbers of tokens {'equal' if same(tokenized, 'tokens') else 'DIFFER'}",
             f"ids of the peers {'equal' if same(tokenized, 'digest') else 'DIFFER'}",
             f"documents of all shards {'equal' if same(prepared, 'digest') else 'DIFFER'}"]
    share = statistics.median(document["share_of_memcpy"] for document in loaded["cuvee"])
    packages = versions_of(given.tokenizers_python, ["tokenizers", "gigatoken"]) + ", " + versions_of(
        given.peers_python, ["megatron-core", "datatrove", "mosaicml-streaming", "litdata", "torch"])
    heading = (f"`scripts/bench_data.py --rounds {given.rounds} --passes {given.passes}`, {datetime.date.today().isoformat()}; "
               f"of tokenizing {TOKENIZE_ROUNDS * given.rounds} rounds; "
               f"{size / 1e6:.1f} MB of text in {len(texts):,} documents, "
               f"for shards {prepared_size / 1e6:.1f} MB: each {given.copies} times, numbered. {machine()}; 2 threads or workers; {version}, {packages}; "
               f"Python {platform.python_version()}, {platform.system()} {platform.release()}. {'; '.join(equal).capitalize()}. "
               f"Cuvee's windows come at {100 * share:.0f} % of one thread's memcpy. " + " ".join(failures)).rstrip()
    parts = [tokenize_table(tokenized, size), prepare_table(prepared, prepared_size), load_table(loaded, given)]
    text = "\n\n".join([heading] + ["\n".join(lines) for lines in parts])
    print(text)
    if given.json:
        document = {"heading": heading, "tokenize": tokenized, "prepare": prepared, "load": loaded}
        given.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    if given.write:
        write_results("bench_data", text)
    if any("DIFFER" in word for word in equal):
        sys.exit("error: the programs do not agree; see the heading")


if __name__ == "__main__":
    main()
