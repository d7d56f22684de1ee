#!/usr/bin/env python3
"""Tokenized files both ways between Cuvee and the programs whose formats they are, token for token, on real text.

    cargo build --release
    python3 -m venv v && v/bin/pip install megatron-core torch datatrove tokenizers numpy
    v/bin/python scripts/check_formats.py --text ../shared/data/wikipedia_en/part-000.jsonl \\
                                          --tokenizer ../shared/data/tokenizers/gpt2/tokenizer.json

Cuvee prepares the text; what it wrote is compared with Python `tokenizers` on the same documents, by megatron-core's
IndexedDataset, datatrove's DatatroveFileDataset, and numpy for nanoGPT and llm.c. Then the programs write the same documents
themselves (OLMo: numpy), and Cuvee converts and inspects those. Any difference is printed, and the exit code is 1.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import warnings
from collections import Counter
from pathlib import Path

warnings.filterwarnings("ignore")

import numpy
import torch
from datatrove.pipeline.tokens.tokenizer import TokenizedFile
from datatrove.utils.dataset import DatatroveFileDataset
from megatron.core.datasets.indexed_dataset import IndexedDataset, IndexedDatasetBuilder
from tokenizers import Tokenizer

ROOT = Path(__file__).resolve().parent.parent
SPLITS = ("train", "tune", "valid")
CONFIG = """
[tokenizer]
file = {tokenizer}
[[domain]]
name = "text"
source = {{ path = {text} }}
"""


class Check:
    """Counts what was compared and what differed."""

    def __init__(self):
        self.done, self.failed = 0, 0

    def equal(self, what, found, expected):
        self.done += 1
        if found != expected:
            self.failed += 1
            print(f"DIFFERS  {what}: expected {str(expected)[:120]}, found {str(found)[:120]}")
        else:
            print(f"equal    {what}")


def cuvee(given, *arguments):
    """Runs the binary; its JSON document."""
    command = [given.cuvee, *map(str, arguments), "--json", "--quiet"]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=False)
    if done.returncode != 0:
        sys.exit(f"error: {command} ended with {done.returncode}; its message is above")
    return json.loads(done.stdout)


def megatron(prefix):
    """The documents of a Megatron shard, as megatron-core reads them."""
    dataset = IndexedDataset(str(prefix), mmap=True)
    ends = dataset.document_indices
    return [numpy.concatenate([dataset[i] for i in range(a, b)]).tolist() for a, b in zip(ends, ends[1:])]


def after_each(stream, end):
    """The documents of a stream that `end` separates."""
    documents, start = [], 0
    for at in (numpy.flatnonzero(stream == end) + 1).tolist():
        documents.append(stream[start:at].tolist())
        start = at
    return documents + ([stream[start:].tolist()] if start < len(stream) else [])


def ours(check, given, folder, documents, end):
    """What Cuvee writes, read by the others."""
    shards = folder / "shards/text"
    read = {split: megatron(shards / split) for split in SPLITS}
    together = Counter(tuple(document) for split in SPLITS for document in read[split])
    check.equal("Cuvee's shards in megatron-core are Python tokenizers' ids", together, Counter(map(tuple, documents)))
    for form in ("nanogpt", "llmc", "datatrove", "megatron"):
        cuvee(given, "convert", shards, folder / form, "--to", form)
    for split in SPLITS:
        expected = read[split]
        stream = [token for document in expected for token in document]
        check.equal(f"{split}: converted to megatron", megatron(folder / f"megatron/{split}"), expected)
        nanogpt = numpy.fromfile(folder / f"nanogpt/{split}.bin", dtype="<u2")
        check.equal(f"{split}: nanoGPT in numpy", after_each(nanogpt, end), expected)
        header = numpy.fromfile(folder / f"llmc/{split}.bin", dtype="<i4", count=256)
        check.equal(f"{split}: llm.c's header", header.tolist(), [20240520, 1, len(stream)] + [0] * 253)
        llmc = numpy.fromfile(folder / f"llmc/{split}.bin", dtype="<u2", offset=1024)
        check.equal(f"{split}: llm.c in numpy", llmc.tolist(), stream)
        path, length = folder / f"datatrove/{split}.ds", 63
        dataset = DatatroveFileDataset(str(path), length, token_size=2, return_positions=True)
        windows = [dataset[i] for i in range(len(dataset))]
        found = [token for window in windows for token in window["input_ids"].tolist()]
        whole = len(stream) // (length + 1) * (length + 1)
        check.equal(f"{split}: datatrove's dataset", found, stream[:whole])
        # Positions restart at each document, and at each window, which is no document's start.
        starts = numpy.cumsum([0] + [len(document) for document in expected[:-1]]).tolist()
        expected_starts = [start for start in starts if start < whole and start % (length + 1)]
        positions = [place for window in windows for place in window["positions"].tolist()]
        found = [at for at, place in enumerate(positions) if place == 0 and at % (length + 1)]
        check.equal(f"{split}: documents by datatrove's index", found, expected_starts)


def theirs(check, given, folder, documents, end):
    """What the others write, read by Cuvee."""
    stream = [token for document in documents for token in document]
    longest, largest = max(map(len, documents)), max(stream)

    def compare(what, path, counted, **said):
        flags = [part for key, value in said.items() for part in (f"--{key.replace('_', '-')}", value)]
        found = cuvee(given, "inspect", path, *flags)
        figures = [found[key] for key in ("tokens", "max_id", "documents", "longest")]
        expected = [len(stream), largest, len(documents), longest] if counted else [len(stream), largest, None, None]
        check.equal(f"{what}: inspected", figures, expected)
        out = folder / f"{path.name}.back.bin"
        cuvee(given, "convert", path, out, "--to", "nanogpt", "--end-of-text", end, *flags)
        check.equal(f"{what}: converted to nanogpt", numpy.fromfile(out, dtype="<u2").tolist(), stream)
        prefix = folder / f"{path.name}.back"
        prefix.with_name(prefix.name + ".bin").unlink()
        cuvee(given, "convert", path, prefix, "--to", "megatron", "--end-of-text", end, *flags)
        check.equal(f"{what}: converted to megatron", megatron(prefix), documents)

    for kind in (numpy.uint16, numpy.int32):
        name = numpy.dtype(kind).name
        builder = IndexedDatasetBuilder(str(folder / f"m-{name}.bin"), dtype=kind)
        for document in documents:
            # Several sequences a document, as preprocess_data --split-sentences makes them.
            half = len(document) // 2
            for part in (document[:half], document[half:]) if half else (document,):
                builder.add_item(torch.tensor(part))
            builder.end_document()
        builder.finalize(str(folder / f"m-{name}.idx"))
        compare(f"megatron-core, {name}", folder / f"m-{name}", True)
    for size in (2, 4):
        file = TokenizedFile(str(folder), f"d{size}.ds", tokenizer_name_or_path="org|gpt2", save_final_metadata=True,
                             token_size=size)
        for document in documents:
            file.write(document, None)
        file.close()
        compare(f"datatrove, {size} bytes", folder / f"d{size}.ds", True)
    numpy.array(stream, dtype="<u2").tofile(folder / "nano.bin")
    compare("nanoGPT", folder / "nano.bin", False, format="nanogpt")
    for magic, version, kind in ((20240520, 1, "<u2"), (20240801, 7, "<u4")):
        header = numpy.zeros(256, dtype="<i4")
        header[:3] = magic, version, len(stream)
        path = folder / f"llmc-{magic}.bin"
        path.write_bytes(header.tobytes() + numpy.array(stream, dtype=kind).tobytes())
        compare(f"llm.c, {magic}", path, False)
    for kind in ("u2", "u4"):
        array = numpy.array(stream, dtype=f"<{kind}")
        array.tofile(folder / f"olmo-{kind}.npy")
        compare(f"OLMo, {kind}", folder / f"olmo-{kind}.npy", False, token_type={"u2": "u16", "u4": "u32"}[kind])
        numpy.save(folder / f"numpy-{kind}.npy", array)
        compare(f"NumPy, {kind}", folder / f"numpy-{kind}.npy", False)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, required=True, metavar="FILE", help="JSON lines with a column `text`")
    parser.add_argument("--tokenizer", type=Path, required=True, metavar="FILE", help="a tokenizer.json with <|endoftext|>")
    parser.add_argument("--cuvee", default=str(ROOT / "target/release/cuvee"), help="the binary")
    given = parser.parse_args()
    check = Check()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = folder / "config.toml"
        paths = {"tokenizer": json.dumps(str(given.tokenizer.resolve())), "text": json.dumps(str(given.text.resolve()))}
        config.write_text(CONFIG.format(**paths), encoding="utf-8")
        cuvee(given, "prepare", config, "--out", folder / "shards")
        tokenizer = Tokenizer.from_file(str(given.tokenizer))
        end = tokenizer.token_to_id("<|endoftext|>")
        texts = [json.loads(line)["text"] for line in given.text.read_text(encoding="utf-8").split("\n") if line]
        encoded = tokenizer.encode_batch([text for text in texts if text.strip()], add_special_tokens=False)
        documents = [encoding.ids + [end] for encoding in encoded]
        ours(check, given, folder, documents, end)
        theirs(check, given, folder, documents, end)
    print(f"{check.done} comparisons, {check.failed} differ")
    sys.exit(1 if check.failed else 0)


if __name__ == "__main__":
    main()
