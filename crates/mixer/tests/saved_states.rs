//! States in checkpoints of earlier versions: they load, are saved again as they were, and the run
//! goes on to the bit.

#![allow(clippy::unwrap_used)]

use cuvee_mixer::{DomainInfo, GradientStatistics, Mixer, MixerState, MixtureSpec, RunSize};

const RUN: RunSize = RunSize { steps: 120, batch_size: 12, context: 16, seed: 5 };

fn bits(values: &[f64]) -> Vec<u64> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// `json` is the state after 80 steps of the mixture `text`, which then had the sampling weights
/// and multipliers of these bits, and these counts, at step 80.
fn goes_on(text: &str, json: &str, p: [u64; 3], m: [u64; 3], counts: [usize; 3]) {
    let spec: MixtureSpec = toml::from_str(text).unwrap();
    let domain =
        |name: &str, importance, tokens| DomainInfo { importance, ..DomainInfo::new(name, tokens) };
    let domains = [domain("web", 0.5, 9_000), domain("code", 0.3, 2_000), domain("math", 0.2, 500)];
    let mut mixer = Mixer::new(&spec, &domains, &RUN).unwrap();
    let state: MixerState = serde_json::from_str(json).unwrap();
    mixer.restore(&state).unwrap();
    assert_eq!(serde_json::to_string(&mixer.state()).unwrap(), json.trim_end());
    // What is observed, and when, is as it was: fixed steps, fixed windows.
    let request = mixer.observation_request();
    assert!(!request.rotate && request.gradient.is_none_or(|gradient| gradient.seed.is_none()));
    let step = mixer.next_step().unwrap();
    assert_eq!((step.step, step.counts.as_slice()), (80, counts.as_slice()));
    assert_eq!(bits(step.sampling.values()), p, "{text}");
    assert_eq!(bits(&step.multipliers), m, "{text}");
    // Of a single sequence such a run learns nothing, and it says nothing that it did not say.
    let before = mixer.state();
    let single = GradientStatistics::from_sums(1, 3.0, 3.0);
    mixer.observe(&step.observation(&[2.0; 12]).with_gradient(vec![Some(single); 3]));
    assert_eq!(mixer.state().sampling, before.sampling);
    assert!(step.measurements.headroom.is_none() && step.measurements.loss_weight_error.is_none());
}

// The files and numbers below were written by commit a1d9c04.

#[test]
fn a_state_of_a_static_strategy() {
    goes_on(
        "sampling = { strategy = 'fixed', shares = { web = 0.61, code = 0.3, math = 0.09 } }",
        include_str!("states/fixed.json"),
        [0x3fe3_851e_b851_eb85, 0x3fd3_3333_3333_3333, 0x3fb7_0a3d_70a3_d70a],
        [0x3ff0_0000_0000_0000; 3],
        [7, 4, 1],
    );
}

#[test]
fn a_state_of_va_and_fgls() {
    goes_on(
        "objective = 'importance'\nsampling = 'va'\nloss = { strategy = 'fgls', every = 10, beta = 0.3 }",
        include_str!("states/va-fgls.json"),
        [0x3fd0_de88_06b6_64ea, 0x3fe0_d554_f014_8417, 0x3fca_ed9c_3241_25d3],
        [0x4000_ab40_2933_c083, 0x3fe2_aabd_49b3_f965, 0x3fe5_e4b6_e6ec_723b],
        [3, 6, 3],
    );
}

#[test]
fn a_state_of_va_and_erma() {
    goes_on(
        "objective = 'importance'\nsampling = { strategy = 'va', start_step = 25, smoothing = 0.5, variance = 'ghost' }\nloss = { strategy = 'erma', every = 20, gamma1 = 0.5, gamma2 = 2 }",
        include_str!("states/va-erma.json"),
        [0x3fc3_5d4d_ece3_18f8, 0x3fe1_d74e_12d9_bbd1, 0x3fd2_a2bc_e3da_fbe2],
        [0x4005_1871_6c5d_b7ab, 0x3fe4_538b_0722_f50b, 0x3feb_22f5_072e_5435],
        [1, 7, 4],
    );
}
