//! Training steps of the bench's decoder in burn on the CPU: what `cuvee bench train` is compared
//! to.
//!
//! The backend is burn's own for the CPU (`flex`, with its SIMD and AVX-512 products), under its
//! autodiff; f32. Same shapes, optimizer settings and task as `cuvee bench train`; data is drawn
//! outside the timed part. Prints one JSON document with the keys of `cuvee bench train --json`.

use std::time::Instant;

use burn::module::{Initializer, Module};
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::{Embedding, EmbeddingConfig, Linear, LinearConfig, RmsNorm, RmsNormConfig};
use burn::optim::{AdamWConfig, GradientsParams};
use burn::tensor::activation::silu;
use burn::tensor::module::attention;
use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::{Device, Int, Tensor, TensorData};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

struct Size {
    width: usize,
    layers: usize,
    heads: usize,
    ffn: usize,
    vocab: usize,
    context: usize,
    batch: usize,
}

fn size(name: &str) -> Option<Size> {
    let (width, layers, heads, ffn, vocab, context, batch) = match name {
        "xs" => (64, 2, 2, 176, 256, 32, 4),
        "s" => (128, 4, 4, 352, 4096, 256, 16),
        "m" => (384, 6, 6, 1024, 16384, 512, 8),
        "l" => (768, 12, 12, 2048, 50304, 1024, 32),
        _ => return None,
    };
    Some(Size { width, layers, heads, ffn, vocab, context, batch })
}

#[derive(Module, Debug)]
struct Layer {
    attention_norm: RmsNorm,
    qkv: Linear,
    out: Linear,
    ffn_norm: RmsNorm,
    gate: Linear,
    up: Linear,
    down: Linear,
}

#[derive(Module, Debug)]
struct Decoder {
    embedding: Embedding,
    layers: Vec<Layer>,
    norm: RmsNorm,
}

/// cos and sin of each position's angles, `[1, 1, context, head / 2]` each.
struct Rotary {
    cos: Tensor<4>,
    sin: Tensor<4>,
}

impl Rotary {
    fn new(context: usize, head: usize, device: &Device) -> Rotary {
        let angles: Vec<f32> = (0..context)
            .flat_map(|t| {
                (0..head / 2).map(move |i| t as f32 * 10_000f32.powf(-2.0 * i as f32 / head as f32))
            })
            .collect();
        let table = |f: fn(f32) -> f32| {
            let values: Vec<f32> = angles.iter().copied().map(f).collect();
            Tensor::<4>::from_data(TensorData::new(values, [1, 1, context, head / 2]), device)
        };
        Rotary { cos: table(f32::cos), sin: table(f32::sin) }
    }

    /// The first half of each head's numbers pairs with the second.
    fn turn(&self, x_bhtd: Tensor<4>) -> Tensor<4> {
        let halves = x_bhtd.chunk(2, 3);
        let (first, second) = (halves[0].clone(), halves[1].clone());
        let turned = [
            first.clone() * self.cos.clone() - second.clone() * self.sin.clone(),
            second * self.cos.clone() + first * self.sin.clone(),
        ];
        Tensor::cat(turned.to_vec(), 3)
    }
}

impl Layer {
    fn new(size: &Size, device: &Device) -> Layer {
        let normal = Initializer::Normal { mean: 0.0, std: 0.02 };
        let linear = |from, to| {
            LinearConfig::new(from, to).with_bias(false).with_initializer(normal.clone()).init(device)
        };
        let norm = || RmsNormConfig::new(size.width).init(device);
        Layer {
            attention_norm: norm(),
            qkv: linear(size.width, 3 * size.width),
            out: linear(size.width, size.width),
            ffn_norm: norm(),
            gate: linear(size.width, size.ffn),
            up: linear(size.width, size.ffn),
            down: linear(size.ffn, size.width),
        }
    }

    fn forward(&self, stream: Tensor<3>, heads: usize, rotary: &Rotary) -> Tensor<3> {
        let [batch, context, width] = stream.dims();
        let qkv = self.qkv.forward(self.attention_norm.forward(stream.clone())).chunk(3, 2);
        let of =
            |part: &Tensor<3>| part.clone().reshape([batch, context, heads, width / heads]).swap_dims(1, 2);
        let options = AttentionModuleOptions { is_causal: true, ..Default::default() };
        let mixed =
            attention(rotary.turn(of(&qkv[0])), rotary.turn(of(&qkv[1])), of(&qkv[2]), None, None, options);
        let mixed = mixed.swap_dims(1, 2).reshape([batch, context, width]);
        let stream = stream + self.out.forward(mixed);
        let hidden = self.ffn_norm.forward(stream.clone());
        stream + self.down.forward(silu(self.gate.forward(hidden.clone())) * self.up.forward(hidden))
    }
}

impl Decoder {
    fn new(size: &Size, device: &Device) -> Decoder {
        Decoder {
            embedding: EmbeddingConfig::new(size.vocab, size.width)
                .with_initializer(Initializer::Normal { mean: 0.0, std: 0.02 })
                .init(device),
            layers: (0..size.layers).map(|_| Layer::new(size, device)).collect(),
            norm: RmsNormConfig::new(size.width).init(device),
        }
    }

    /// Logits `[batch · context, vocab]`; the head is the embedding.
    fn forward(&self, inputs: Tensor<2, Int>, heads: usize, rotary: &Rotary) -> Tensor<2> {
        let mut stream = self.embedding.forward(inputs);
        for layer in &self.layers {
            stream = layer.forward(stream, heads, rotary);
        }
        let [batch, context, width] = stream.dims();
        let stream = self.norm.forward(stream).reshape([batch * context, width]);
        stream.matmul(self.embedding.weight.val().transpose())
    }
}

/// Knuth's MMIX linear congruential generator, high bits.
fn draw(state: &mut u64, bound: u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) % bound
}

/// Walks around the vocabulary: a uniform start, a uniform stride of 1 to 7. Inputs and targets.
fn cyclic_batch(size: &Size, state: &mut u64) -> (Vec<i64>, Vec<i64>) {
    let (mut inputs, mut targets) = (Vec::new(), Vec::new());
    for _ in 0..size.batch {
        let (start, stride) = (draw(state, size.vocab as u64), 1 + draw(state, 7));
        let id = |t: usize| ((start + stride * t as u64) % size.vocab as u64) as i64;
        inputs.extend((0..size.context).map(id));
        targets.extend((1..=size.context).map(id));
    }
    (inputs, targets)
}

/// Most memory this process has held at once; `null` where the system does not say.
fn peak_rss_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    Some(1024 * line.split_whitespace().nth(1)?.parse::<u64>().ok()?)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--version") {
        // As pinned in Cargo.toml.
        println!("burn 0.22.1");
        return Ok(());
    }
    let value = |flag: &str| arguments.iter().position(|a| a == flag).and_then(|at| arguments.get(at + 1));
    let number = |flag: &str, default: usize| value(flag).map_or(Ok(default), |text| text.parse());
    let name = value("--size").map_or("s", String::as_str);
    let size = size(name).ok_or("--size: expected xs, s, m or l")?;
    if value("--precision").is_some_and(|precision| precision != "f32") {
        return Err("--precision: expected f32".into());
    }
    let (steps, warmup) = (number("--steps", 10)?, number("--warmup", 2)?);
    let threads = number("--threads", std::thread::available_parallelism()?.get())?;
    // burn computes in rayon's global pool.
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()?;

    let device = Device::flex().autodiff();
    let plain = Device::flex();
    let mut decoder = Decoder::new(&size, &device);
    let rotary = Rotary::new(size.context, size.width / size.heads, &device);
    let loss_function = CrossEntropyLossConfig::new().init(&device);
    let mut optimizer = AdamWConfig::new()
        .with_beta_1(0.9)
        .with_beta_2(0.95)
        .with_epsilon(1e-8)
        .with_weight_decay(0.1)
        .init();
    let (mut times, mut losses, mut state) = (Vec::new(), Vec::new(), 1u64);
    for step in 0..warmup + steps {
        let (inputs, targets) = cyclic_batch(&size, &mut state);
        let inputs = Tensor::<2, Int>::from_data(TensorData::new(inputs, [size.batch, size.context]), &plain);
        let targets =
            Tensor::<1, Int>::from_data(TensorData::new(targets, [size.batch * size.context]), &plain);
        let begun = Instant::now();
        let loss = loss_function.forward(decoder.forward(inputs, size.heads, &rotary), targets);
        losses.push(loss.clone().into_scalar::<f32>());
        let gradients = GradientsParams::from_grads(loss.backward(), &decoder);
        decoder = optimizer.step(1e-3, decoder, gradients);
        if step >= warmup {
            times.push(1e3 * begun.elapsed().as_secs_f64());
        }
    }
    let mut sorted = times.clone();
    sorted.sort_by(f64::total_cmp);
    let middle = (sorted[(sorted.len() - 1) / 2] + sorted[sorted.len() / 2]) / 2.0;
    let tokens = size.batch * size.context;
    println!(
        "{}",
        serde_json::json!({
            "what": "train", "size": name, "engine": "burn flex", "precision": "f32", "threads": threads,
            "tokens_per_second": 1e3 * tokens as f64 / middle, "median_ms": middle, "min_ms": sorted.first(),
            "tokens_per_step": tokens, "peak_rss_bytes": peak_rss_bytes(), "first_loss": losses.first(),
            "last_loss": losses.last(), "steps_ms": times,
        })
    );
    Ok(())
}
