#!/usr/bin/env python3
"""Compares Cuvee with transformers on the same model folders: token ids, logits, greedy continuation.

    pip install torch transformers pyyaml
    scripts/check_export.py RUN/export [more folders] [--cuvee PATH] [--stories PATH/stories260k] [--types]

Each folder is a Cuvee export, a checkpoint or any Hugging Face Llama folder with its tokenizer. Both programs read the
folder; every logit at every position of every prompt must agree to 1e-4. Where the folder has a model card, huggingface_hub
must read its header. `--stories` also checks karpathy's stories260K: its greedy story must be the known one. `--types` exports each
folder again in f32, bf16 and f16, in one file and in several: transformers must load each in that type, with the weights rounded as
PyTorch rounds them. Exit status 0 if all holds, 1 if anything does not.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from huggingface_hub import ModelCard
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

TOLERANCE = 1e-4
PROMPTS = ["Once upon a time", "fn main() {\n    let total = 0;", "# Heading\n\nSome *text*, 12.5 % of it.", "naïve – 日本語"]
# The beginning of what llama2.c prints for this model.
STORY = ", there was a little girl named Lily. She loved to play outside in the park."


def find_cuvee():
    """The binary of this checkout, the fastest first, else the one on the PATH."""
    root = Path(__file__).resolve().parent.parent
    built = [root / "target" / profile / "cuvee" for profile in ("release", "debug")]
    return next((str(path) for path in built if path.is_file()), shutil.which("cuvee"))


def cuvee(binary, *arguments):
    """Runs the binary and reads its JSON document."""
    done = subprocess.run([binary, *map(str, arguments), "--json"], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{binary} {' '.join(map(str, arguments))}: exit {done.returncode}\n{done.stderr}")
    return json.loads(done.stdout)


class Peer:
    """The same folder in transformers."""

    def __init__(self, folder):
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))

    @torch.no_grad()
    def logits(self, ids):
        return self.model(torch.tensor([ids])).logits[0]

    @torch.no_grad()
    def continuation(self, ids, count):
        """Greedy, ended by the end of text."""
        prompt = torch.tensor([ids])
        out = self.model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=count, do_sample=False)
        new = out[0, len(ids):].tolist()
        return new[:-1] if new and new[-1] == self.model.config.eos_token_id else new


def check_folder(binary, folder):
    """Problems found in one folder; prints what was compared."""
    peer, problems = Peer(folder), []
    longest = peer.model.config.max_position_embeddings
    for prompt in PROMPTS:
        ours = cuvee(binary, "generate", folder, "--prompt", prompt, "--logits")
        ids = ours["tokens"]
        theirs = peer.tokenizer(prompt).input_ids
        if ids != theirs:
            problems.append(f"{prompt!r}: token ids {ids}, in transformers {theirs}")
        worst = (torch.tensor(ours["logits"]) - peer.logits(ids)).abs().max().item()
        print(f"  {prompt!r}: {len(ids)} tokens, largest difference of a logit {worst:.1e}")
        if not worst <= TOLERANCE:
            problems.append(f"{prompt!r}: logits differ by {worst:.1e}, more than {TOLERANCE:.0e}")
        count = min(40, longest - len(ids))
        greedy = cuvee(binary, "generate", folder, "--prompt", prompt, "--tokens", count, "--temperature", 0)["tokens"]
        expected = peer.continuation(ids, count)
        if greedy != expected:
            # Two logits within rounding of each other may swap places: a difference only where the
            # choice was clear.
            at = next((i for i, pair in enumerate(zip(greedy, expected)) if pair[0] != pair[1]), None)
            if at is None:
                problems.append(f"{prompt!r}: {len(greedy)} greedy tokens, in transformers {len(expected)}")
            else:
                row = peer.logits(ids + expected[:at])[-1]
                gap = (row[expected[at]] - row[greedy[at]]).item()
                if gap > 2 * TOLERANCE:
                    problems.append(f"{prompt!r}: greedy token {at} is {greedy[at]}, in transformers {expected[at]}")
    return problems


def check_card(folder):
    """Problems with the header of a card, as the Hub's own library reads it."""
    file = folder / "README.md"
    if not file.is_file():
        return []
    try:
        about = ModelCard.load(file).data
    except Exception as error:  # Whatever it is, the Hub would refuse the card.
        return [f"README.md: {error}"]
    results = about.eval_results or []
    print(f"  README.md: {about.library_name}, license {about.license}, {len(results)} results")
    wanted = ("transformers", "text-generation")
    return [] if (about.library_name, about.pipeline_tag) == wanted else [f"README.md: {about.to_dict()}"]


def check_types(binary, folder):
    """Problems with the folder written again in each type and size."""
    problems = []
    own = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).state_dict()
    size = sum(tensor.numel() for tensor in own.values())
    for name, dtype in (("f32", torch.float32), ("bf16", torch.bfloat16), ("f16", torch.float16)):
        for largest in (10 * size, size):
            with tempfile.TemporaryDirectory() as place:
                out = Path(place) / "export"
                cuvee(binary, "export", folder, out, "--dtype", name, "--max-shard", largest)
                files = len(list(out.glob("*.safetensors")))
                found = AutoModelForCausalLM.from_pretrained(out, dtype="auto")
                print(f"  {name} in {files} files: loaded as {found.dtype}")
                if found.dtype != dtype:
                    problems.append(f"{name}: loaded as {found.dtype}")
                if (files > 1) != (largest == size):
                    problems.append(f"{name}: {files} files of at most {largest} bytes")
                theirs = found.state_dict()
                wrong = [key for key, tensor in own.items() if not torch.equal(tensor.to(dtype), theirs[key])]
                if wrong:
                    problems.append(f"{name}: {wrong[0]} and {len(wrong) - 1} more are not as PyTorch rounds them")
                problems += check_folder(binary, out)
    return problems


def check_story(binary, folder):
    """Problems with the known story."""
    text = cuvee(binary, "generate", folder, "--prompt", "Once upon a time", "--tokens", 100, "--temperature", 0)["text"]
    print(f"  Once upon a time{text}")
    # A tokenizer that writes a space before the first word may keep or drop it.
    return [] if text.strip().startswith(STORY) else [f"expected a story beginning {STORY!r}, found {text[:80]!r}"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path, help="exports or other model folders")
    parser.add_argument("--cuvee", default=find_cuvee(), help="the cuvee binary")
    parser.add_argument("--stories", type=Path, help="the folder of stories260k")
    parser.add_argument("--types", action="store_true", help="export each folder again in every type and size")
    options = parser.parse_args()
    if not options.cuvee:
        parser.error("no cuvee binary: build it with `cargo build --release`, or name it with --cuvee")
    folders = [*options.folders, *([options.stories] if options.stories else [])]
    if not folders:
        parser.error("nothing to check: name an export folder or --stories")

    problems = []
    for folder in folders:
        print(folder)
        found = check_folder(options.cuvee, folder) + check_card(folder)
        if options.types:
            found += check_types(options.cuvee, folder)
        if folder == options.stories:
            found += check_story(options.cuvee, folder)
        problems += [f"{folder}: {problem}" for problem in found]
    for problem in problems:
        print(f"FAILED {problem}", file=sys.stderr)
    print("failed" if problems else "all equal")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
