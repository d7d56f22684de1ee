#!/usr/bin/env python3
"""One program of scripts/bench_data.py at work: `data_peer.py WHAT JSON`, figures as JSON on stdout. Each runs in a process of its own,
by the Python that has it. Times are of the work alone: imports and the reading of texts into memory are not in them."""

import hashlib
import json
import os
import sys
import time
import warnings
from pathlib import Path

warnings.filterwarnings("ignore")
WINDOW, BATCH, CONTEXT = 2048, 32, 512


def texts_of(paths):
    """The texts of JSON lines files, without those of white space alone, as Cuvee takes them."""
    found = [json.loads(line)["text"] for path in paths for line in Path(path).read_text(encoding="utf-8").split("\n") if line]
    return [text for text in found if text.strip()]


def digest(documents):
    """What the ids of all documents are, whatever their order: a hash of the sorted hashes."""
    import numpy
    each = sorted(hashlib.sha256(numpy.asarray(ids, dtype="<u4").tobytes()).digest() for ids in documents)
    return hashlib.sha256(b"".join(each)).hexdigest()


def timed(work):
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def tokenizers(given):
    """Python `tokenizers`: encode_batch_fast over its own threads, which leaves out offsets."""
    from tokenizers import Tokenizer
    texts = texts_of(given["text"])
    tokenizer = Tokenizer.from_file(given["tokenizer"])
    tokenizer.encode_batch_fast(["warm the pool"] * 64, add_special_tokens=False)
    seconds, encoded = timed(lambda: tokenizer.encode_batch_fast(texts, add_special_tokens=False))
    ids = [encoding.ids for encoding in encoded]
    return {"seconds": [seconds], "tokens": sum(map(len, ids)), "digest": digest(ids)}


def gigatoken(given):
    """gigatoken: whole buffers of bytes, borrowed, ids into one array. A fresh tokenizer; the pool of threads is warm."""
    import gigatoken as gt
    import numpy
    data = [text.encode() for text in texts_of(given["text"])]
    gt.Tokenizer(given["tokenizer"]).encode_batch([b"warm the pool"] * 64)
    tokenizer, source, seconds = gt.Tokenizer(given["tokenizer"]), gt.BytesSource(data), []
    for _ in range(given["passes"]):
        elapsed, encoded = timed(lambda: tokenizer.encode_batch(source))
        seconds.append(elapsed)
    ids = [numpy.asarray(row) for row in encoded]
    return {"seconds": seconds, "tokens": sum(map(len, ids)), "digest": digest(ids)}


def start_worker(tokenizer):
    global TOKENIZER
    from tokenizers import Tokenizer
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    TOKENIZER = Tokenizer.from_file(tokenizer)


def encode_line(line):
    text = json.loads(line)["text"]
    return TOKENIZER.encode(text, add_special_tokens=False).ids, len(text.encode())


def megatron_prepare(given):
    """What Megatron-LM's preprocess_data does: worker processes encode lines, the parent adds documents to one builder."""
    import multiprocessing
    import numpy
    import torch
    from megatron.core.datasets.indexed_dataset import IndexedDataset, IndexedDatasetBuilder
    prefix = Path(given["out"]) / "megatron"

    def work():
        builder = IndexedDatasetBuilder(f"{prefix}.bin", dtype=numpy.uint16)
        with multiprocessing.Pool(2, start_worker, (given["tokenizer"],)) as pool:
            for path in given["text"]:
                with open(path, encoding="utf-8") as lines:
                    for ids, _ in pool.imap(encode_line, lines, 32):
                        if ids:
                            ids.append(given["end_of_text"])
                            builder.add_document(torch.IntTensor(ids), [len(ids)])
        builder.finalize(f"{prefix}.idx")

    seconds, _ = timed(work)
    dataset = IndexedDataset(str(prefix))
    return {"seconds": [seconds], "digest": digest(dataset[i] for i in range(len(dataset)))}


def datatrove_prepare(given):
    """datatrove: JsonlReader and DocumentTokenizer in two worker processes, no shuffling."""
    import numpy
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.tokens import DocumentTokenizer
    from loguru import logger
    logger.remove()
    folder, out = Path(given["text"][0]).parent, Path(given["out"])
    writer = DocumentTokenizer(str(out / "ds"), given["tokenizer"], eos_token="<|endoftext|>", shuffle_documents=False)
    pipeline = [JsonlReader(str(folder), glob_pattern="*.jsonl"), writer]
    executor = LocalPipelineExecutor(pipeline, tasks=2, workers=2, logging_dir=str(out / "logs"))
    seconds, _ = timed(executor.run)
    documents = []
    for path in sorted((out / "ds").glob("*.ds")):
        ids, ends = numpy.fromfile(path, dtype="<u2"), numpy.fromfile(f"{path}.index", dtype="<u8")
        documents += numpy.split(ids, ends[:-1].astype(int)) if len(ends) else []
    return {"seconds": [seconds], "digest": digest(documents)}


def shards_digest(given):
    """The documents of Cuvee's shards of all splits."""
    from megatron.core.datasets.indexed_dataset import IndexedDataset
    found = []
    for split in ("train", "tune", "valid"):
        dataset = IndexedDataset(str(Path(given["shards"]) / split))
        # Copies: what a data set gives out is gone with it.
        found += [dataset[i].copy() for i in range(len(dataset))]
    return {"digest": digest(found)}


def write_sparse(prefix, tokens, length=1000):
    """A Megatron shard of zeros that takes no disk but its index."""
    import numpy
    count = tokens // length
    with open(f"{prefix}.bin", "wb") as file:
        file.truncate(2 * tokens)
    with open(f"{prefix}.idx", "wb") as file:
        file.write(b"MMIDIDX\0\0" + (1).to_bytes(8, "little") + b"\x08")
        file.write(count.to_bytes(8, "little") + (count + 1).to_bytes(8, "little"))
        numpy.full(count, length, dtype="<i4").tofile(file)
        (numpy.arange(count, dtype="<i8") * 2 * length).tofile(file)
        numpy.arange(count + 1, dtype="<i8").tofile(file)


def rate_of(dataset, length, seconds=2.0):
    """Tokens a second of items in random order, one process."""
    import random
    generator, done, start = random.Random(0), 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        for _ in range(16):
            dataset[generator.randrange(length)]
            done += WINDOW
    return done / (time.perf_counter() - start)


def megatron_load(given):
    """megatron-core: BlendedMegatronDatasetBuilder over ten shards, for as many samples as all tokens make; building its index is
    reported, and starting again with the index cached."""
    import torch
    from types import SimpleNamespace
    from megatron.core.datasets.blended_megatron_dataset_builder import BlendedMegatronDatasetBuilder
    from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig
    torch.distributed.init_process_group("gloo", rank=0, world_size=1, store=torch.distributed.HashStore())
    out = Path(given["out"])
    prefixes = [str(out / f"domain-{i}") for i in range(10)]
    for prefix in prefixes:
        write_sparse(prefix, given["tokens"] // 10)

    def build(context, samples):
        tokenizer = SimpleNamespace(eod=50256, pad=-1, vocab_size=50257, unique_identifiers={"name": "gpt2"})
        config = GPTDatasetConfig(
            random_seed=0, sequence_length=context, blend=(prefixes, [0.1] * 10), split="1,0,0", tokenizer=tokenizer,
            path_to_cache=str(out / "cache"), reset_position_ids=False, reset_attention_mask=False, eod_mask_loss=False,
            create_attention_mask=False)
        return BlendedMegatronDatasetBuilder(GPTDataset, [samples, 0, 0], lambda: True, config).build()[0]

    def first():
        dataset = build(CONTEXT, given["tokens"] // (CONTEXT + 1))
        return torch.stack([dataset[i]["tokens"] for i in range(BATCH)])

    building, _ = timed(first)
    again, _ = timed(first)
    dataset = build(WINDOW - 1, given["tokens"] // 10 // WINDOW)
    return {"first_batch_ms": 1e3 * building, "again_ms": 1e3 * again, "tokens_per_second": rate_of(dataset, len(dataset))}


def mosaic_load(given):
    """mosaicml-streaming: MDS shards of 2,048-token samples, read locally by one process."""
    import numpy
    from streaming import MDSWriter, StreamingDataset
    samples = given["samples"] // 10
    out = Path(given["out"])
    item = numpy.arange(WINDOW, dtype=numpy.uint16)
    for domain in range(10):
        with MDSWriter(out=str(out / f"mds-{domain}"), columns={"tokens": "ndarray:uint16:2048"}) as writer:
            for _ in range(samples):
                writer.write({"tokens": item})
    from streaming import Stream
    from streaming.base.util import clean_stale_shared_memory
    clean_stale_shared_memory()

    def first():
        streams = [Stream(local=str(out / f"mds-{i}"), proportion=0.1) for i in range(10)]
        dataset = StreamingDataset(streams=streams, batch_size=BATCH, shuffle=True, num_canonical_nodes=1)
        iterator = iter(dataset)
        numpy.stack([next(iterator)["tokens"] for _ in range(BATCH)])
        return dataset, iterator

    seconds, (dataset, iterator) = timed(first)
    start, done = time.perf_counter(), 0
    for _ in iterator:
        done += WINDOW
        if time.perf_counter() - start > 2:
            break
    return {"first_batch_ms": 1e3 * seconds, "again_ms": None, "tokens_per_second": done / (time.perf_counter() - start)}


def blocks(index):
    import torch
    for _ in range(64):
        yield torch.arange(WINDOW, dtype=torch.int32)


def litdata_load(given):
    """litdata: optimize() with TokensLoader, a CombinedStreamingDataset of ten, read locally by one process."""
    import contextlib
    import torch
    import litdata
    out = Path(given["out"])
    from litdata import CombinedStreamingDataset, StreamingDataset, TokensLoader
    with contextlib.redirect_stdout(sys.stderr):
        for domain in range(10):
            litdata.optimize(fn=blocks, inputs=list(range(max(1, given["samples"] // 640))), output_dir=str(out / f"lit-{domain}"),
                             chunk_bytes="64MB", item_loader=TokensLoader(), num_workers=1, verbose=False)

    def first():
        datasets = [StreamingDataset(str(out / f"lit-{i}"), item_loader=TokensLoader(block_size=WINDOW), shuffle=True)
                    for i in range(10)]
        combined = CombinedStreamingDataset(datasets, weights=[0.1] * 10, iterate_over_all=False, seed=0)
        iterator = iter(combined)
        torch.stack([next(iterator) for _ in range(BATCH)])
        return iterator

    seconds, iterator = timed(first)
    start, done = time.perf_counter(), 0
    for _ in iterator:
        done += WINDOW
        if time.perf_counter() - start > 2:
            break
    return {"first_batch_ms": 1e3 * seconds, "again_ms": None, "tokens_per_second": done / (time.perf_counter() - start)}


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]](json.loads(sys.argv[2]))))
