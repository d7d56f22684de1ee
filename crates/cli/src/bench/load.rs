//! `cuvee bench load`: how fast windows come out of shards, and how long a run waits for its first
//! batch.
//!
//! Windows: one shard of made-up ids (u16, 256 MiB) in the page cache, windows of 2,048 tokens from
//! random places, read one after another on one thread as training does, widened to u32. Beside it
//! the same thread's `memcpy` of the same 256 MiB to another place, in one go, and of the windows'
//! bytes from the same places: bytes of the shard count, not those of the wider ids that come out.
//!
//! First batch: ten domains of together `--tokens` tokens, 1,000 a document, in the page cache.
//! From reading the config to ids in memory: open the ten folders, plan the run with its mixer,
//! draw, read the batch; all as `cuvee train` does it. Not in it is what `train` does beside:
//! looking whether the sources have changed, loading the tokenizer, building the model. The first
//! start of all, whose pages come into memory for the first time, is reported by itself: it
//! measures the disk and the kernel.

use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use cuvee_data::{Domain, Shard, Split, write_synthetic};
use cuvee_report::{bytes, count};
use cuvee_train::read_batch;
use serde_json::json;

use super::median::median;
use crate::config::{Config, ConfigError};
use crate::plan::Plan;
use crate::session::Session;

/// Tokens a window.
const WINDOW: usize = 2048;
/// Tokens of the shard that windows come from: 256 MiB, beyond any cache of the processor.
const SHARD_TOKENS: u64 = 1 << 27;
/// Domains of the mixture.
const DOMAINS: usize = 10;
/// First batches, each from nothing; the first brings the pages into memory.
const STARTS: usize = 11;

/// What the command line says about the measurement.
#[derive(clap::Args, Clone, Debug)]
pub struct LoadArgs {
    /// Tokens of the mixture whose first batch is waited for (they take no disk; their index takes
    /// 1/50 byte a token)
    #[arg(long, value_name = "N", default_value_t = 1_000_000_000)]
    tokens: u64,
    /// Time given to each of the rates
    #[arg(long, value_name = "S", default_value_t = 1.0)]
    seconds: f64,
}

/// Measures and says what came out.
pub fn run(args: &LoadArgs, session: &Session) -> anyhow::Result<()> {
    let refuse = |what: String| Err(ConfigError(format!("bench load: {what}")).into());
    let least = (DOMAINS * 100_000) as u64;
    if !(least..=1_000_000_000_000).contains(&args.tokens) {
        return refuse(format!(
            "--tokens: expected {least} to 1000000000000, found {}\nhint: leave it out for 1000000000",
            args.tokens
        ));
    }
    if !(args.seconds > 0.0 && args.seconds <= 60.0) {
        return refuse(format!(
            "--seconds: expected up to 60, found {}\nhint: 1 is enough",
            args.seconds
        ));
    }
    let folder = tempfile::tempdir()?;
    let rates = rates(folder.path(), args.seconds)?;
    let starts = starts(folder.path(), args.tokens)?;
    let (cold, first) = (starts[0], median(&starts[1..]));
    let share = rates.windows / rates.memcpy;
    let tokens_per_second = rates.windows / 2.0;
    session.say(format!(
        "Windows of {WINDOW} tokens: {} tokens/s on one thread, {}/s of the shard, {:.0} % of memcpy ({}/s; window by window {}/s)\n\
         First batch of {DOMAINS} domains and {} tokens: {first:.2} ms (median of {}), {cold:.2} ms the very first time",
        count(tokens_per_second),
        bytes(rates.windows as u64),
        100.0 * share,
        bytes(rates.memcpy as u64),
        bytes(rates.memcpy_windows as u64),
        count(args.tokens as f64),
        STARTS - 1
    ));
    session.emit(&json!({
        "what": "load",
        "tokens_per_second": tokens_per_second,
        "first_batch_ms": first,
        "first_batch_cold_ms": cold,
        "bytes_per_second": rates.windows,
        "memcpy_bytes_per_second": rates.memcpy,
        "memcpy_windows_bytes_per_second": rates.memcpy_windows,
        "share_of_memcpy": share,
        "window": WINDOW,
        "domains": DOMAINS,
        "mixture_tokens": args.tokens,
        "starts_ms": starts,
    }))
}

/// Bytes of the shard a second.
struct Rates {
    /// Windows read and widened.
    windows: f64,
    /// The whole copied in one go.
    memcpy: f64,
    /// The windows copied as they are.
    memcpy_windows: f64,
}

fn rates(folder: &Path, seconds: f64) -> anyhow::Result<Rates> {
    let dir = folder.join("windows");
    write_synthetic(&dir, "windows", SHARD_TOKENS, true)?;
    let shard = Shard::open(&dir.join("train"))?;
    shard.advise_random();
    let memory = std::fs::read(dir.join("train.bin"))?;
    let mut copy = vec![0u8; memory.len()];
    // Odd steps around the stream come to every place; the places are as good as random for caches
    // and prefetching.
    let places = SHARD_TOKENS - WINDOW as u64;
    let step = (0x9e37_79b9_7f4a_7c15u64 % places) | 1;
    let mut ids = [0u32; WINDOW];
    let mut at = 0;
    let mut window = || {
        let next = (at + step) % places;
        // As in training, where a batch says which window is the next.
        shard.prefetch(next, WINDOW);
        shard.read(at, &mut ids);
        black_box(&mut ids);
        at = next;
    };
    // Once over everything first: pages mapped, memory there.
    for _ in 0..2 * SHARD_TOKENS as usize / WINDOW {
        window();
    }
    let windows = rate(seconds, 2 * WINDOW, 64, window);
    copy.copy_from_slice(&memory);
    let memcpy = rate(seconds, memory.len(), 1, || {
        copy.copy_from_slice(&memory);
        black_box(&mut copy);
    });
    let (mut at, mut small) = (0, [0u8; 2 * WINDOW]);
    let memcpy_windows = rate(seconds, 2 * WINDOW, 64, || {
        at = (at + step) % places;
        small.copy_from_slice(&memory[2 * at as usize..][..2 * WINDOW]);
        black_box(&mut small);
    });
    Ok(Rates { windows, memcpy, memcpy_windows })
}

/// Bytes a second of something done `batch` times between two looks at the clock.
fn rate(seconds: f64, bytes: usize, batch: usize, mut once: impl FnMut()) -> f64 {
    let (start, mut done) = (Instant::now(), 0usize);
    loop {
        (0..batch).for_each(|_| once());
        done += batch;
        let elapsed = start.elapsed().as_secs_f64();
        if elapsed >= seconds {
            return (done * bytes) as f64 / elapsed;
        }
    }
}

/// Milliseconds to the first batch, each time from nothing.
fn starts(folder: &Path, tokens: u64) -> anyhow::Result<Vec<f64>> {
    let mut text = "[tokenizer]\nfile = \"tokenizer.json\"\n\n[model]\npreset = \"s\"\n\n[train]\nsteps = 10\nbatch_size = 32\ncontext = 512\n".to_owned();
    let dirs: Vec<_> = (0..DOMAINS).map(|number| folder.join(format!("domain-{number}"))).collect();
    for (number, dir) in dirs.iter().enumerate() {
        let name = format!("domain-{number}");
        write_synthetic(dir, &name, tokens / DOMAINS as u64, false)?;
        text.push_str(&format!(
            "\n[[domain]]\nname = \"{name}\"\nsource = {{ path = \"{name}.jsonl\" }}\n"
        ));
    }
    let config = folder.join("config.toml");
    std::fs::write(&config, text)?;
    (0..STARTS).map(|_| first_batch(&config, &dirs, folder)).collect()
}

fn first_batch(config: &Path, dirs: &[std::path::PathBuf], folder: &Path) -> anyhow::Result<f64> {
    let start = Instant::now();
    let config = Config::load(config, &[], None)?;
    let mut domains: Vec<Domain> =
        dirs.iter().map(|dir| Domain::open(dir)).collect::<Result<_, _>>()?;
    for (number, domain) in domains.iter_mut().enumerate() {
        domain.entry = number;
    }
    let vocab_size = domains[0].manifest.vocab_size;
    let (plan, mut mixer) = Plan::new(&config, &domains, vocab_size, folder)?;
    let shards: Vec<&Shard> = domains.iter().map(|domain| domain.shard(Split::Train)).collect();
    shards.iter().for_each(|shard| shard.advise_random());
    let names: Vec<String> = domains.iter().map(|domain| domain.name.clone()).collect();
    let draws = mixer.next_step()?.draws;
    let batch = read_batch(&draws, &shards, &names, plan.run.train.context, vocab_size)?;
    let elapsed = start.elapsed().as_secs_f64() * 1e3;
    black_box(batch);
    Ok(elapsed)
}
