#!/usr/bin/env python3
"""Compares Cuvee with transformers on every family: in, and out again after some training.

    pip install torch transformers safetensors
    scripts/check_families.py TOKENIZER.json [--cuvee PATH]

For each config of `crates/train/tests/golden/families` a fresh random model is made over the
tokenizer's ids. Its logits must be those of transformers, then it is trained for a few steps by
`cuvee train`, and the export's logits must be those of transformers too, which must load it as the
class it was. So must those of fresh models with each switch. Exit status 0 if all holds, 1 if
anything does not.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM

ROOT = Path(__file__).resolve().parent.parent
TOLERANCE = 1e-4
PROMPT = "Once upon a time there was a little girl"
FRESH = {
    "plain": ("", "LlamaForCausalLM"),
    "qk_norm": ("qk_norm = true", "Qwen3ForCausalLM"),
    "qkv_bias": ("qkv_bias = true", "Qwen2ForCausalLM"),
    "family": ('family = "mistral"', "MistralForCausalLM"),
    "linear": ('rope_scaling = { rope_type = "linear", factor = 2 }', "LlamaForCausalLM"),
    "yarn": ('qk_norm = true\nrope_scaling = { rope_type = "yarn", factor = 4.0, original_max_position_embeddings = 8 }',
             "Qwen3ForCausalLM"),
}
CONFIG = """
[tokenizer]
file = {tokenizer}
[data]
dir = "shards"
split = {{ tune = 0.1, valid = 0.1 }}
[[domain]]
name = "a"
source = {{ path = "a.jsonl" }}
[model]
{model}
[train]
steps = 6
batch_size = 4
context = 16
lr = 1e-2
[eval]
every = 0
sequences = 2
"""


def run(binary, *arguments):
    return subprocess.run([binary, *map(str, arguments)], capture_output=True, text=True)


def differs(binary, folder, architecture):
    """The largest difference of a logit, or what went wrong."""
    said = run(binary, "generate", folder, "--prompt", PROMPT, "--logits")
    if said.returncode:
        return said.stderr
    found = json.loads(said.stdout)
    peer = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    if type(peer).__name__ != architecture:
        return f"transformers loads it as {type(peer).__name__}, expected {architecture}"
    with torch.no_grad():
        expected = peer(torch.tensor([found["tokens"]])).logits[0]
    return float((torch.tensor(found["logits"]) - expected).abs().max())


def check(name, off):
    holds = isinstance(off, float) and off < TOLERANCE
    print(f"{'ok ' if holds else 'BAD'} {name}: {off:.1e}" if isinstance(off, float) else f"BAD {name}: {off}")
    return holds


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("tokenizer", type=Path)
    parser.add_argument("--cuvee", default=str(ROOT / "target/release/cuvee"))
    arguments = parser.parse_args()
    tokenizer = arguments.tokenizer.resolve()
    words = "river stone lamp quiet orchard winter paper engine signal harbor".split()
    documents = [" ".join(words[(i * j) % 10] for j in range(3, 40)) for i in range(200)]
    vocabulary = json.loads(tokenizer.read_text())["model"]["vocab"]
    good = True
    with tempfile.TemporaryDirectory() as work:
        work = Path(work)
        (work / "a.jsonl").write_text("".join(json.dumps({"text": f"{d} {i}"}) + "\n" for i, d in enumerate(documents)))

        def train(model, name):
            config = CONFIG.format(tokenizer=json.dumps(str(tokenizer)), model=model)
            (work / "config.toml").write_text(config)
            said = run(arguments.cuvee, "train", work / "config.toml", "--out", work / "runs" / name, "-q")
            return said.stderr if said.returncode else work / "runs" / name / "export"

        for golden in sorted((ROOT / "crates/train/tests/golden/families").glob("*/*.json")):
            name = f"{golden.parent.name}/{golden.stem}"
            folder = work / "models" / name
            folder.mkdir(parents=True)
            config = json.loads(golden.read_text()) | {"vocab_size": len(vocabulary)}
            (folder / "config.json").write_text(json.dumps(config))
            torch.manual_seed(0)
            read = AutoConfig.from_pretrained(folder)
            AutoModelForCausalLM.from_config(read).float().save_pretrained(folder)
            (folder / "config.json").write_text(json.dumps(config))
            shutil.copy(tokenizer, folder / "tokenizer.json")
            architecture = config["architectures"][0]
            good &= check(f"{name}, in", differs(arguments.cuvee, folder, architecture))
            export = train(f"init = {json.dumps(str(folder))}", name.replace("/", "-"))
            out = export if isinstance(export, str) else differs(arguments.cuvee, export, architecture)
            good &= check(f"{name}, out", out)
        for name, (switch, architecture) in FRESH.items():
            export = train(f'preset = "xs"\n{switch}', f"fresh-{name}")
            out = export if isinstance(export, str) else differs(arguments.cuvee, export, architecture)
            good &= check(f"fresh {name}, out", out)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
