#!/usr/bin/env python3
"""Writes tiny random models of every family that Cuvee reads, and what transformers makes of them.

    pip install torch transformers safetensors
    scripts/make_family_goldens.py [FOLDER]        # default: crates/train/tests/golden/families

A family's folder holds `model.safetensors` and, for each way its config.json may read, `NAME.json`
with that config and `NAME.safetensors` with the logits of a prompt under it, and for some the
gradient of the prompt's mean loss by every parameter. The logits are those of transformers 5.24 in
f32 on the CPU. `crates/train/tests/families.rs` reads them.
"""

import json
import sys
import tempfile
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file

CONTEXT = 24
SHAPE = dict(
    vocab_size=40, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=64, rms_norm_eps=1e-5, bos_token_id=1, eos_token_id=2,
    initializer_range=0.3,
)
LLAMA3 = dict(
    rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=32
)
YARN = dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=16)

# Of each family: its class, what its model has, and its cases: name, changes to config.json (None
# removes a key), whether gradients are kept. A case is read by transformers from the file alone.
FAMILIES = {
    "llama": (
        transformers.LlamaConfig,
        dict(head_dim=8),
        [
            ("plain", {}, True),
            ("version_4", {"rope_parameters": None, "rope_theta": 500.0, "rope_scaling": {}, "dtype": None}, False),
            ("linear", {"rope_parameters": {"rope_theta": 500.0, "rope_type": "linear", "factor": 2.0}}, False),
            ("linear_version_4", {"rope_parameters": None, "rope_theta": 500.0,
                                  "rope_scaling": {"type": "linear", "factor": 2.0}}, False),
            ("llama3", {"rope_parameters": {"rope_theta": 500.0, **LLAMA3}}, True),
            ("llama3_version_4", {"rope_parameters": None, "rope_theta": 500.0, "rope_scaling": LLAMA3}, False),
            ("yarn", {"rope_parameters": {"rope_theta": 500.0, **YARN}}, True),
            ("yarn_factor", {"rope_parameters": {"rope_theta": 500.0, **YARN, "attention_factor": 1.3,
                                                 "beta_fast": 8.0, "beta_slow": 2.0}}, False),
            ("yarn_mscale", {"rope_parameters": None, "rope_theta": 500.0,
                             "rope_scaling": {**YARN, "mscale": 0.7, "mscale_all_dim": 0.4}}, False),
            ("yarn_whole", {"rope_parameters": {"rope_theta": 500.0, **YARN, "truncate": False}}, False),
        ],
    ),
    "mistral": (
        transformers.MistralConfig,
        dict(sliding_window=None),
        [("plain", {}, False), ("window", {"sliding_window": CONTEXT}, False)],
    ),
    "qwen2": (
        transformers.Qwen2Config,
        dict(tie_word_embeddings=True),
        [
            ("plain", {}, True),
            ("unused_window", {"sliding_window": 4, "use_sliding_window": False, "max_window_layers": 1,
                               "layer_types": None}, False),
            ("yarn", {"rope_parameters": None, "rope_theta": 500.0, "rope_scaling": YARN}, False),
        ],
    ),
    "qwen3": (
        transformers.Qwen3Config,
        dict(head_dim=6),
        [("plain", {}, True), ("yarn", {"rope_parameters": {"rope_theta": 500.0, **YARN}}, True)],
    ),
    "smollm3": (
        transformers.SmolLM3Config,
        dict(num_hidden_layers=5, hidden_size=8, intermediate_size=12, pad_token_id=None),
        [
            ("plain", {"no_rope_layers": None, "layer_types": None}, True),
            ("interval", {"no_rope_layers": None, "no_rope_layer_interval": 2, "layer_types": None}, False),
            ("list", {"no_rope_layers": [0, 1, 1, 0, 1], "tie_word_embeddings": None}, False),
        ],
    ),
}


def write_family(folder, name, make, extra, cases):
    torch.manual_seed(len(name))
    shape = {**SHAPE, "rope_parameters": {"rope_theta": 500.0, "rope_type": "default"}, **extra}
    model = transformers.AutoModelForCausalLM.from_config(make(**shape)).float().eval()
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if "norm" in parameter_name:
                parameter.add_(torch.randn_like(parameter) * 0.2)
            if parameter_name.endswith("bias"):
                parameter.copy_(torch.randn_like(parameter) * 0.3)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as saved:
        saved = Path(saved)
        model.save_pretrained(saved)
        (folder / "model.safetensors").write_bytes((saved / "model.safetensors").read_bytes())
        config = json.loads((saved / "config.json").read_text())
        for case, changes, with_gradients in cases:
            changed = {key: value for key, value in {**config, **changes}.items() if key not in changes or value is not None}
            (saved / "config.json").write_text(json.dumps(changed))
            read = transformers.AutoModelForCausalLM.from_pretrained(saved, dtype=torch.float32).eval()
            ids = torch.tensor([[(7 * i * i + 3 * i) % SHAPE["vocab_size"] for i in range(CONTEXT + 1)]])
            tensors = {"logits": read(ids[:, :-1]).logits[0].detach()}
            if with_gradients:
                # Targets are shifted here: the model's own loss would leave the last one out.
                logits = read(ids[:, :-1]).logits[0]
                torch.nn.functional.cross_entropy(logits, ids[0, 1:]).backward()
                tensors |= {f"gradient.{n}": p.grad for n, p in read.named_parameters()}
            (folder / f"{case}.json").write_text(json.dumps(changed, indent=1) + "\n")
            save_file({n: t.contiguous() for n, t in tensors.items()}, folder / f"{case}.safetensors")
            print(f"{name}/{case}: largest logit {float(tensors['logits'].abs().max()):.2f}")


def main():
    root = Path(__file__).resolve().parent.parent
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else root / "crates/train/tests/golden/families"
    print(f"transformers {transformers.__version__}, torch {torch.__version__}")
    for name, (make, extra, cases) in FAMILIES.items():
        write_family(folder / name, name, make, extra, cases)


if __name__ == "__main__":
    main()
