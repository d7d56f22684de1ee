//! A real pretrained model: karpathy's stories260K in the Hugging Face layout, against
//! `transformers`.
//!
//! The golden numbers are those of this Python (transformers 5.23, torch 2.15, CPU, f32):
//!
//! ```python
//! import torch; from transformers import AutoModelForCausalLM
//! m = AutoModelForCausalLM.from_pretrained("stories260k").eval()
//! ids = m.generate(torch.tensor([[1, 403, 407, 261, 378]]), max_new_tokens=80, do_sample=False)
//! print(ids[0].tolist(), m(ids, labels=ids).loss.item(), m(ids[:, :5]).logits[0, [0, -1], :8])
//! ```

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::ops::ControlFlow;
use std::path::PathBuf;

use cuvee_mixer::DomainId;
use cuvee_train::{
    Batch, DeviceSpec, Engine, Limits, ReferenceEngine, Sampler, SamplingSpec, TokenBuffer,
    TrainSpec, generate, hf,
};

/// `<s>` Once upon a time
const PROMPT: [u32; 5] = [1, 403, 407, 261, 378];

/// ", there was a little girl named Lily. She loved to play outside in the park. One day, she saw a
/// big, red ball. She wanted to play with it, but it was too high.\nLily's mom said, "Lily, let's
/// go to the park"
const STORY: [u32; 80] = [
    432, 383, 286, 261, 376, 298, 315, 421, 395, 317, 426, 338, 401, 396, 267, 337, 410, 408, 419,
    292, 411, 322, 265, 282, 295, 433, 426, 385, 328, 432, 358, 394, 261, 370, 432, 352, 266, 268,
    388, 426, 338, 391, 266, 267, 337, 335, 312, 432, 398, 312, 286, 267, 414, 270, 333, 415, 426,
    13, 438, 310, 439, 419, 357, 336, 432, 313, 438, 310, 432, 278, 316, 439, 419, 298, 414, 267,
    265, 282, 295, 433,
];

fn folder() -> Option<PathBuf> {
    let folder = cuvee_testkit::shared_data().map(|data| data.join("models/stories260k"));
    if folder.is_none() {
        eprintln!("skipped: the shared data is not here");
    }
    folder
}

/// 80 tokens at most, or up to one of these ids.
fn ending_with(ends: &[u32]) -> Limits<'_> {
    Limits { ends, ..Limits::of_length(80) }
}

fn engine(folder: &std::path::Path) -> ReferenceEngine {
    let model = hf::read_config(folder).unwrap();
    let parameters = hf::open_parameters(folder, &model).unwrap();
    ReferenceEngine::from_parameters(&model, &TrainSpec::default(), DeviceSpec::Cpu, &parameters)
        .unwrap()
}

#[test]
fn greedy_continuation_is_the_known_story() {
    let Some(folder) = folder() else { return };
    let mut engine = engine(&folder);
    let greedy = Sampler::new(SamplingSpec::default()).unwrap();
    let story =
        generate(&mut engine, &PROMPT, ending_with(&[2]), &greedy, |_| ControlFlow::Continue(()))
            .unwrap();
    assert_eq!(story, STORY);
    // A callback that breaks ends it, its token included; so does the end of text, itself left out.
    let short =
        generate(&mut engine, &PROMPT, ending_with(&[]), &greedy, |_| ControlFlow::Break(()))
            .unwrap();
    assert_eq!(short, STORY[..1]);
    // Each of several ids ends it.
    for ends in [&[STORY[3]][..], &[511, STORY[3]], &[STORY[3], 511]] {
        let ended = generate(&mut engine, &PROMPT, ending_with(ends), &greedy, |_| {
            ControlFlow::Continue(())
        })
        .unwrap();
        assert_eq!(ended, STORY[..3]);
    }
}

#[test]
fn logits_and_loss_are_those_of_transformers() {
    let Some(folder) = folder() else { return };
    let mut engine = engine(&folder);
    let logits = engine.all_logits(&PROMPT).unwrap();
    // Two f32 implementations of five layers: 1e-4 on logits of size 10 is 80 units in the last
    // place.
    let close =
        |ours: &[f32], theirs: &[f32]| ours.iter().zip(theirs).all(|(a, b)| (a - b).abs() < 1e-4);
    assert!(close(&logits, &[-6.222_913, 8.404_342, -6.223_739, -6.222_543]), "{:?}", &logits[..4]);
    let last = [
        -10.136_579,
        -5.329_465,
        -10.138_086,
        -10.136_856,
        -10.137_214,
        -10.138_332,
        -10.137_266,
        -10.137_642,
    ];
    assert!(close(&logits[4 * 512..], &last), "{:?}", &logits[4 * 512..][..8]);

    let ids: Vec<u32> = PROMPT.into_iter().chain(STORY).collect();
    let loss = engine.sequence_losses(&TokenBuffer::new(ids, 84, 512).unwrap()).unwrap()[0];
    // A mean of 84 f32 losses, each good to about 1e-5.
    assert!((loss - 0.435_109_138).abs() < 1e-5, "{loss}");
}

#[test]
fn training_continues_from_it() {
    let Some(folder) = folder() else { return };
    let mut engine = engine(&folder);
    let ids: Vec<u32> = PROMPT.into_iter().chain(STORY).collect();
    // Two sequences that overlap by one token.
    let rows = [&ids[..41], &ids[40..81]].concat();
    let tokens = TokenBuffer::new(rows, 40, 512).unwrap();
    let batch = Batch::new(tokens, vec![DomainId(0); 2], vec![1.0, 1.0]).unwrap();
    let first = engine.step(&batch, 1e-4).unwrap().loss;
    let second = engine.step(&batch, 1e-4).unwrap().loss;
    assert!(second < first, "{first} → {second}");
}
