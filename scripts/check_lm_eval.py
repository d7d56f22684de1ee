#!/usr/bin/env python3
"""Compares `cuvee eval --items` and `--text` with lm-evaluation-harness on a model folder.

    pip install lm_eval accelerate torch transformers
    scripts/check_lm_eval.py RUN/export TEXTS.jsonl [--cuvee PATH] [--items N] [--documents N]

TEXTS.jsonl is any file of JSON lines with `text` (or `question` and `answer`). The script makes items of it: a beginning
as context and four continuations, the real one and three with its words in another order; among them items without
context, with white space at the context's end, with contexts that are too long, and continuations alone. Nothing is
fetched. Checked are, in f32:

- the log-likelihood of every answer, and how many tokens it has;
- acc, acc_norm, acc_bytes and their standard errors of a multiple-choice task, and the same from its logged samples;
- the rolling log-likelihood and bits per byte of whole documents, some longer than the context (of a tokenizer that
  begins texts with a token, with `add_bos_token=False`: the harness would score that token).

Exit status 0 if all agree, 1 if anything does not.
"""

import argparse
import json
import math
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from lm_eval import simple_evaluate
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from check_export import find_cuvee

# Nats a token: both programs sum some thousand products in f32, in another order.
TOLERANCE = 1e-4
problems = []


def check(what, found, expected, tolerance=0.0):
    """Notes a difference."""
    same = found == expected or (tolerance > 0 and abs(found - expected) <= tolerance)
    if not same:
        problems.append(f"{what}: {found}, in lm-evaluation-harness {expected}")


def cuvee(binary, folder, *arguments):
    command = [binary, "eval", str(folder), "--precision", "f32", "--json", "-q", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}: exit {done.returncode}\n{done.stderr}")
    return json.loads(done.stdout)


def texts_of(path):
    texts = []
    # Not splitlines, which also cuts at characters that JSON leaves in strings.
    for line in filter(None, path.read_text(encoding="utf-8").split("\n")):
        row = json.loads(line)
        text = row.get("text") or f"Question: {row['question']}\nAnswer: {row['answer']}"
        if len(text.split()) >= 12:
            texts.append(text)
    return texts


def items_of(texts, count, chance):
    items = []
    for number, text in enumerate(texts[:count]):
        words = text.split(" ")
        cut = chance.randrange(3, min(len(words) - 6, 60))
        right = words[cut : cut + chance.randrange(2, 6)]
        choices = [" " + " ".join(right)]
        while len(choices) < 4:
            other = right + [chance.choice(words)]
            chance.shuffle(other)
            choices.append(" " + " ".join(other))
        # Most contexts end with the word before; some with its space, some are missing or long.
        context = " ".join(words[:cut])
        if number % 7 == 1:
            context, choices = context + " ", [choice[1:] for choice in choices]
        elif number % 7 == 2:
            context = ""
        elif number % 7 == 3:
            context = "\n".join(texts[:5]) + context
        elif number % 7 == 4:
            context, choices = context + "\n\n", [choice + " – naïve" for choice in choices]
        order = list(range(4))
        chance.shuffle(order)
        items.append({"context": context, "choices": [choices[i] for i in order], "gold": order.index(0), "task": "made"})
    return items


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="an export or another model folder")
    parser.add_argument("texts", type=Path, help="JSON lines with text")
    parser.add_argument("--cuvee", default=find_cuvee(), help="the cuvee binary")
    parser.add_argument("--items", type=int, default=140)
    parser.add_argument("--documents", type=int, default=40)
    options = parser.parse_args()
    chance, texts = random.Random(1), texts_of(options.texts)
    items = items_of(texts, options.items, chance)
    model = HFLM(pretrained=str(options.folder), device="cpu", dtype="float32", batch_size=8)
    print(f"context {model.max_length}, prefix {model.prefix_token_id}, {len(items)} items")

    with tempfile.TemporaryDirectory() as place:
        place = Path(place)
        path, scores = place / "items.jsonl", place / "scores.jsonl"
        path.write_text("".join(json.dumps(item) + "\n" for item in items), encoding="utf-8")
        ours = cuvee(options.cuvee, options.folder, "--items", path, "--scores", scores)
        check("prefix", ours["prefix"], model.prefix_token_id)
        check("context", ours["context"], model.max_length)

        # Every answer.
        pairs = [(item["context"], choice) for item in items for choice in item["choices"]]
        requests = [Instance("loglikelihood", {}, pair, 0) for pair in pairs]
        theirs = [value for value, _ in model.loglikelihood(requests, disable_tqdm=True)]
        scored = [json.loads(line) for line in filter(None, scores.read_text().split("\n"))]
        found = [value for line in scored for value in line["log_likelihoods"]]
        tokens = [count for line in scored for count in line["tokens"]]
        worst = 0.0
        for pair, value, count, expected in zip(pairs, found, tokens, theirs, strict=True):
            worst = max(worst, abs(value - expected) / count)
            check(f"log-likelihood of {pair[1]!r}", value, expected, TOLERANCE * count)
        print(f"{len(pairs)} answers, largest difference {worst:.1e} nats a token")

        # The task and its statistics, and the samples that it logs.
        task = {
            "task": "made",
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"test": str(path)}},
            "test_split": "test",
            "output_type": "multiple_choice",
            "doc_to_text": "{{context}}",
            "doc_to_choice": "{{choices}}",
            "doc_to_target": "{{gold}}",
            "target_delimiter": "",
            "metric_list": [{"metric": name} for name in ("acc", "acc_norm", "acc_bytes")],
        }
        os.environ["HF_DATASETS_CACHE"] = str(place / "cache")
        result = simple_evaluate(model=model, tasks=[task], task_manager=TaskManager(), log_samples=True, bootstrap_iters=0)
        expected = result["results"]["made"]
        row = ours["tasks"][0]
        for metric, key in (("acc", "raw"), ("acc_norm", "character"), ("acc_bytes", "byte")):
            mine = row["accuracy"][key]
            check(metric, mine["value"], expected[f"{metric},none"], 1e-12)
            error = expected.get(f"{metric}_stderr,none")
            if isinstance(error, float):
                check(f"{metric}_stderr", mine["standard_error"], error, 1e-12)
            print(f"{metric}: {mine['value']:.4f} ± {mine['standard_error']:.4f}, {expected[f'{metric},none']:.4f} ± {error}")
        bits = [
            -value / math.log(2) / len(item["choices"][item["gold"]].encode())
            for item, value in zip(items, (line["log_likelihoods"][line["gold"][0]] for line in scored))
        ]
        check("bits per byte", row["bits_per_byte"]["value"], sum(bits) / len(bits), 1e-9)
        logged = place / "samples_made_2026-01-01T00-00-00.jsonl"
        with logged.open("w") as out:
            for sample in result["samples"]["made"]:
                arguments = {
                    f"gen_args_{i}": {f"arg_{j}": part for j, part in enumerate(pair)}
                    for i, pair in enumerate(sample["arguments"])
                }
                line = {"doc_id": sample["doc_id"], "target": str(sample["target"]), "arguments": arguments}
                out.write(json.dumps(line) + "\n")
        again = cuvee(options.cuvee, options.folder, "--items", logged)["tasks"][0]
        check("acc of the logged samples", again["accuracy"]["raw"], row["accuracy"]["raw"])

        # Whole documents.
        documents = texts[: options.documents - 2] + ["\n".join(texts[:40]), "\n".join(texts[40:43])]
        path = place / "documents.jsonl"
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in documents), encoding="utf-8")
        row = cuvee(options.cuvee, options.folder, "--text", path)["domains"][0]
        requests = [Instance("loglikelihood_rolling", {}, (text,), 0) for text in documents]
        # Where the tokenizer itself begins a text with the prefix (Llama, Gemma), the harness
        # reads it twice and scores the second, unless it is told not to add one: its issue 3333.
        begins = model.tokenizer.encode("a")[0] == model.prefix_token_id
        model.add_bos_token = False if begins else None
        nats = -sum(model.loglikelihood_rolling(requests, disable_tqdm=True))
        if begins:
            model.add_bos_token = None
            twice = -sum(model.loglikelihood_rolling(requests, disable_tqdm=True)) - nats
            print(f"without add_bos_token=False lm-evaluation-harness scores the prefix too: {twice:.1f} nats more")
        bytes_ = sum(len(text.encode()) for text in documents)
        check("bytes", row["bytes"], bytes_)
        check("rolling log-likelihood", row["loss"] * row["tokens"], nats, TOLERANCE * row["tokens"])
        check("bits per byte of documents", row["bits_per_byte"], nats / math.log(2) / bytes_, TOLERANCE)
        print(
            f"{len(documents)} documents, {row['windows']} windows: {row['bits_per_byte']:.6f} bits a byte, "
            f"{nats / math.log(2) / bytes_:.6f}"
        )
    for problem in problems[:20]:
        print(f"FAILED {problem}", file=sys.stderr)
    print(f"{len(problems)} differences" if problems else "all equal")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
