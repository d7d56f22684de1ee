#!/usr/bin/env python3
"""Training steps of the bench's decoder in PyTorch: what `cuvee bench train` is compared to.

    MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=20000000000 MALLOC_TOP_PAD_=268435456 \\
        python3 scripts/torch_step.py --size m --mode compile --precision bf16

PyTorch at its best as far as we found it: torch.compile, queries, keys and values as one product, the library's causal
attention and RMSNorm, fused AdamW, bf16 by autocast over f32 parameters; the allocator settings above make it 1.1 to 1.3 times
faster (scripts/bench_train.py sets them). Same shapes, optimizer settings and task as `cuvee bench train`; data is drawn outside
the timed part. Prints one JSON document with the keys of `cuvee bench train --json`; the memory is this process's own,
without the compilers that torch.compile starts.
"""

import argparse
import json
import os
import resource
import statistics
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn

# width, layers, heads, feed-forward width, vocabulary, context, batch
SIZES = {"xs": (64, 2, 2, 176, 256, 32, 4), "s": (128, 4, 4, 352, 4096, 256, 16),
         "m": (384, 6, 6, 1024, 16384, 512, 8), "l": (768, 12, 12, 2048, 50304, 1024, 32)}


def rotary(context, width):
    """cos and sin of each position's angles, [context, width / 2] each."""
    frequencies = 10_000 ** -(torch.arange(0, width, 2) / width)
    angles = torch.arange(context)[:, None] * frequencies
    return angles.cos(), angles.sin()


def turn(heads, cos, sin):
    """Rotary positions: the first half of each head's numbers pairs with the second."""
    half = heads.shape[-1] // 2
    first, second = heads[..., :half], heads[..., half:]
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


class Layer(nn.Module):
    """Attention and SwiGLU, each on the normalised stream and added to it."""

    def __init__(self, width, heads, ffn):
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.RMSNorm(width, eps=1e-5)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.ffn_norm = nn.RMSNorm(width, eps=1e-5)
        self.gate = nn.Linear(width, ffn, bias=False)
        self.up = nn.Linear(width, ffn, bias=False)
        self.down = nn.Linear(ffn, width, bias=False)

    def forward(self, stream, cos, sin):
        batch, context, width = stream.shape
        qkv = self.qkv(self.attention_norm(stream)).chunk(3, dim=-1)
        q, k, v = (part.view(batch, context, self.heads, -1).transpose(1, 2) for part in qkv)
        # The tables are f32: back to the products' type, which the library's attention wants for
        # all three.
        q, k = turn(q, cos, sin).to(v.dtype), turn(k, cos, sin).to(v.dtype)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        stream = stream + self.out(mixed.transpose(1, 2).reshape(batch, context, width))
        hidden = self.ffn_norm(stream)
        return stream + self.down(F.silu(self.gate(hidden)) * self.up(hidden))


class Decoder(nn.Module):
    """Token ids and targets in, mean cross-entropy out; the head is the embedding."""

    def __init__(self, width, layers, heads, ffn, vocab, context):
        super().__init__()
        self.embedding = nn.Embedding(vocab, width)
        self.layers = nn.ModuleList(Layer(width, heads, ffn) for _ in range(layers))
        self.norm = nn.RMSNorm(width, eps=1e-5)
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                nn.init.normal_(module.weight, std=0.02)
        cos, sin = rotary(context, width // heads)
        self.register_buffer("cos", cos)
        self.register_buffer("sin", sin)

    def forward(self, inputs, targets):
        stream = self.embedding(inputs)
        for layer in self.layers:
            stream = layer(stream, self.cos, self.sin)
        logits = F.linear(self.norm(stream), self.embedding.weight)
        return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())


def cyclic_batch(batch, context, vocab, generator):
    """Walks around the vocabulary: a uniform start, a uniform stride of 1 to 7."""
    start = torch.randint(vocab, (batch, 1), generator=generator)
    stride = torch.randint(1, 8, (batch, 1), generator=generator)
    ids = (start + stride * torch.arange(context + 1)) % vocab
    return ids[:, :-1].contiguous(), ids[:, 1:].contiguous()


def peak_rss_bytes():
    """Most memory this process has held at once."""
    try:
        with open("/proc/self/status", encoding="utf-8") as lines:
            return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    except OSError:  # not Linux: getrusage counts bytes on macOS and kilobytes elsewhere
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="s")
    parser.add_argument("--mode", choices=["eager", "compile"], default="compile")
    parser.add_argument("--precision", choices=["f32", "bf16"], default="f32")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--steps", type=int, default=10, help="timed")
    parser.add_argument("--warmup", type=int, default=2, help="steps before them")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    if given.threads < 1 or given.steps < 1 or given.warmup < 0:
        parser.error("--threads and --steps must be at least 1, --warmup at least 0")

    torch.set_num_threads(given.threads)
    if given.device == "cuda" and given.precision == "bf16":
        torch.set_float32_matmul_precision("high")
    torch.manual_seed(given.seed)
    width, layers, heads, ffn, vocab, context, batch = SIZES[given.size]
    decoder = Decoder(width, layers, heads, ffn, vocab, context).to(given.device)
    optimizer = torch.optim.AdamW(decoder.parameters(), lr=1e-3, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1, fused=True)
    forward = torch.compile(decoder) if given.mode == "compile" else decoder
    generator = torch.Generator().manual_seed(given.seed + 1)

    steps_ms, losses = [], []
    for step in range(given.warmup + given.steps):
        inputs, targets = (ids.to(given.device) for ids in cyclic_batch(batch, context, vocab, generator))
        start = time.perf_counter()
        with torch.autocast(given.device, dtype=torch.bfloat16, enabled=given.precision == "bf16"):
            loss = forward(inputs, targets)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
        if step >= given.warmup:
            steps_ms.append(1e3 * (time.perf_counter() - start))

    median = statistics.median(steps_ms)
    device_bytes = torch.cuda.max_memory_allocated() if given.device == "cuda" else None
    print(json.dumps({
        "what": "train", "size": given.size, "engine": f"torch {given.mode}", "precision": given.precision,
        "device": given.device, "peak_device_bytes": device_bytes,
        "threads": given.threads, "tokens_per_second": 1e3 * batch * context / median, "median_ms": median,
        "min_ms": min(steps_ms), "tokens_per_step": batch * context, "peak_rss_bytes": peak_rss_bytes(),
        "first_loss": losses[0], "last_loss": losses[-1], "steps_ms": steps_ms}))


if __name__ == "__main__":
    main()
