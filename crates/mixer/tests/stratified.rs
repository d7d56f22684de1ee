//! The promise of stratified counts: after every step each domain's cumulative count is within 1 of
//! its cumulative expectation, for any shares, also while they change.

#![allow(clippy::unwrap_used)]

use cuvee_mixer::strategy::{Schedule, Stage};
use cuvee_mixer::{DomainInfo, Interpolate, Mixer, MixtureSpec, RunSize, StrategySpec};
use proptest::prelude::*;

fn domains(count: usize) -> Vec<DomainInfo> {
    (0..count).map(|i| DomainInfo::new(&format!("d{i:02}"), 1_000)).collect()
}

fn stage(from_step: u64, shares: &[f64]) -> Stage {
    let named = shares.iter().enumerate().map(|(i, share)| (format!("d{i:02}"), *share));
    Stage { from_step, shares: named.collect() }
}

fn mixer(stages: Vec<Stage>, interpolate: Interpolate, steps: u64, batch_size: usize) -> Mixer {
    let domains = domains(stages[0].shares.len());
    let spec = MixtureSpec {
        sampling: StrategySpec::Schedule(Schedule { stages, interpolate }),
        ..MixtureSpec::default()
    };
    Mixer::new(&spec, &domains, &RunSize { steps, batch_size, context: 100, seed: 0 }).unwrap()
}

/// Neumaier's compensated sum: its error does not grow with the number of terms.
#[derive(Clone, Copy, Default)]
struct Sum {
    sum: f64,
    lost: f64,
}

impl Sum {
    fn add(&mut self, value: f64) {
        let total = self.sum + value;
        let (large, small) =
            if self.sum.abs() >= value.abs() { (self.sum, value) } else { (value, self.sum) };
        self.lost += (large - total) + small;
        self.sum = total;
    }

    fn value(self) -> f64 {
        self.sum + self.lost
    }
}

/// Runs to the end and returns the counts of each domain; panics at the first prefix that breaks
/// the promise.
fn assert_within_one(mixer: &mut Mixer, steps: u64, batch_size: usize) -> Vec<u64> {
    let domains = mixer.domains().len();
    let mut expected = vec![Sum::default(); domains];
    let mut counted = vec![0u64; domains];
    for step in 0..steps {
        let draw = mixer.next_step().unwrap();
        assert_eq!(draw.counts.iter().sum::<usize>(), batch_size, "step {step}");
        for (i, p) in draw.sampling.values().iter().enumerate() {
            expected[i].add(batch_size as f64 * p);
            counted[i] += draw.counts[i] as u64;
            let error = counted[i] as f64 - expected[i].value();
            // The mixer's residual loses at most half a unit of its size (below B + 1 ≤ 65, so
            // 2⁻⁴⁷) at each of two operations a step: over 10⁴ steps below 1.5e-10, to which its
            // own tolerance for "reached" adds 1e-9.
            assert!(error.abs() < 1.0 + 2e-9, "step {step}, domain {i}: {error}");
            assert!((mixer.residuals()[i] + error).abs() < 2e-10, "the residuals agree");
        }
        assert_eq!(mixer.consumed(), counted);
    }
    counted
}

/// Shares of very different sizes, some of them 0.
fn shares(domains: usize) -> impl Strategy<Value = Vec<f64>> {
    let share = prop_oneof![
        1 => Just(0.0),
        2 => Just(1.0),
        4 => 0.01f64..1.0,
        2 => (-6.0f64..0.0).prop_map(|exponent| 10f64.powf(exponent)),
    ];
    prop::collection::vec(share, domains)
        .prop_filter("some share", |raw| raw.iter().any(|share| *share > 0.0))
}

/// Small batches are harder: less is due at once, so that more is left to choice.
fn batch_sizes() -> impl Strategy<Value = usize> {
    prop_oneof![1usize..=4, 1usize..=64]
}

/// Stages of the same domains: a few long ones or many short ones, which are harder.
fn stages() -> impl Strategy<Value = Vec<Stage>> {
    let shape = prop_oneof![Just((200, 8)), Just((12, 40))];
    (2usize..=40, shape).prop_flat_map(|(domains, (longest, most))| {
        prop::collection::vec((1u64..longest, shares(domains)), 2..most).prop_map(|list| {
            let mut next = 0;
            let stages = list.iter().map(|(length, raw)| {
                let from_step = next;
                next += length;
                stage(from_step, raw)
            });
            stages.collect()
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn counts_stay_within_one_of_static_shares(
        raw in (1usize..=40).prop_flat_map(shares),
        batch_size in batch_sizes(),
    ) {
        let mut mixer = mixer(vec![stage(0, &raw)], Interpolate::Hold, 1_500, batch_size);
        let counted = assert_within_one(&mut mixer, 1_500, batch_size);
        for (share, count) in raw.iter().zip(counted) {
            prop_assert!(*share > 0.0 || count == 0, "a domain without a share is never drawn");
        }
    }

    #[test]
    fn counts_stay_within_one_of_shares_that_jump(stages in stages(), batch_size in batch_sizes()) {
        assert_within_one(&mut mixer(stages, Interpolate::Hold, 1_200, batch_size), 1_200, batch_size);
    }

    #[test]
    fn counts_stay_within_one_of_shares_that_move(stages in stages(), batch_size in batch_sizes()) {
        assert_within_one(&mut mixer(stages, Interpolate::Linear, 1_200, batch_size), 1_200, batch_size);
    }
}

#[test]
fn where_counts_begin_depends_on_the_seed_and_favours_no_domain() {
    // Four equal domains, two sequences a step: which two come first is left open by the deadlines.
    let spec = MixtureSpec {
        sampling: StrategySpec::Uniform(Default::default()),
        ..MixtureSpec::default()
    };
    let (domains, seeds) = (domains(4), 400u64);
    let run = |seed| RunSize { steps: 8, batch_size: 2, context: 100, seed };
    let mut first = [0usize; 4];
    for seed in 0..seeds {
        let mut mixer = Mixer::new(&spec, &domains, &run(seed)).unwrap();
        let steps: Vec<Vec<usize>> = (0..8).map(|_| mixer.next_step().unwrap().counts).collect();
        for (total, count) in first.iter_mut().zip(&steps[0]) {
            *total += count;
        }
        // Equal shares in pairs of steps, whatever the phase.
        for pair in steps.chunks(2) {
            assert!((0..4).all(|i| pair[0][i] + pair[1][i] == 1), "{steps:?}");
        }
        let mut again = Mixer::new(&spec, &domains, &run(seed)).unwrap();
        assert_eq!(again.next_step().unwrap().counts, steps[0], "a seed's counts are its own");
    }
    // Each is first in half of the seeds: 200 ± 5 · √(400/4).
    assert!(first.iter().all(|times| times.abs_diff(200) <= 50), "{first:?}");
}

#[test]
fn a_run_from_before_there_were_phases_goes_on_without() {
    let raw = [0.4, 0.35, 0.25];
    let mut mixer = mixer(vec![stage(0, &raw)], Interpolate::Hold, 40, 3);
    let mut state = serde_json::to_value(mixer.state()).unwrap();
    for domain in state["domains"].as_array_mut().unwrap() {
        assert!(domain.as_object_mut().unwrap().remove("phase").is_some());
    }
    let older: cuvee_mixer::MixerState = serde_json::from_value(state.clone()).unwrap();
    mixer.restore(&older).unwrap();
    // Saved again it is what it was, so that the next resumption goes on without, too.
    assert_eq!(serde_json::to_value(mixer.state()).unwrap(), state);
    // E after a step: (1.2, 1.05, 0.75). By the largest residual, as it was without phases.
    assert_eq!(mixer.next_step().unwrap().counts, [1, 1, 1]);
    assert_within_one_from(&mut mixer, [1, 1, 1], [1.2, 1.05, 0.75]);
}

/// As [`assert_within_one`], for static shares of 3 sequences a step, from step 1 on.
fn assert_within_one_from(mixer: &mut Mixer, counted: [u64; 3], each: [f64; 3]) {
    let mut counted = counted;
    for step in 2..=40u64 {
        let draw = mixer.next_step().unwrap();
        for (i, each) in each.iter().enumerate() {
            counted[i] += draw.counts[i] as u64;
            assert!((counted[i] as f64 - step as f64 * each).abs() < 1.0 + 2e-9, "step {step}");
        }
    }
}

#[test]
fn counts_stay_within_one_over_a_long_run() {
    let raw = [0.5, 0.3, 0.1, 0.05, 0.03, 0.019, 0.000_9, 0.000_1];
    let mut mixer = mixer(vec![stage(0, &raw)], Interpolate::Hold, 10_000, 16);
    assert_within_one(&mut mixer, 10_000, 16);
}

#[test]
fn counts_stay_within_one_where_expectations_meet_whole_numbers() {
    // Every expectation becomes whole again and again: the knife's edge of ">" and "≥", where 0.1
    // is not a tenth.
    for (domains, batch_size) in [(10, 1), (10, 3), (3, 1), (7, 5), (40, 64), (5, 25)] {
        let mut mixer =
            mixer(vec![stage(0, &vec![0.1; domains])], Interpolate::Hold, 1_000, batch_size);
        let counted = assert_within_one(&mut mixer, 1_000, batch_size);
        if 1_000 * batch_size % domains == 0 {
            let each = (1_000 * batch_size / domains) as u64;
            assert!(counted.iter().all(|count| *count == each), "{counted:?}");
        }
    }
}

#[test]
fn shares_that_defeat_the_largest_residual_keep_the_bound() {
    // Found by random search: with these static shares, serving whoever is furthest behind leaves a
    // domain 1.31 behind.
    let raw = [
        1.0,
        5.0,
        0.254_155,
        1.0,
        1.0,
        1.0,
        1.0,
        0.094_304_5,
        5.0,
        5.0,
        1.0,
        0.681_914,
        5.0,
        5.0,
        0.840_850,
        1.0,
        1.0,
        0.567_750,
        0.050_531_6,
    ];
    assert_within_one(&mut mixer(vec![stage(0, &raw)], Interpolate::Hold, 2_000, 2), 2_000, 2);
}

#[test]
fn a_schedule_that_drops_half_its_domains_again_and_again_keeps_the_bound() {
    // The cup game with its moves known. Largest residual first, and deadlines extrapolated from
    // the present shares, both fall 1.6 behind with four steps a stage; knowing the deadlines does
    // not.
    let domains = 32u64;
    for length in 1..=domains {
        let active = [32, 16, 8, 4, 2, 1];
        let shares = |active: u64| -> Vec<f64> {
            (0..domains).map(|i| f64::from(u8::from(i >= domains - active))).collect()
        };
        let stages: Vec<Stage> =
            active.iter().zip(0..).map(|(active, k)| stage(k * length, &shares(*active))).collect();
        let steps = 6 * length + 20;
        for interpolate in [Interpolate::Hold, Interpolate::Linear] {
            assert_within_one(&mut mixer(stages.clone(), interpolate, steps, 1), steps, 1);
        }
    }
}

#[test]
fn a_share_of_one_in_a_million_gets_its_draw_in_time() {
    // B p = 64e-6: E passes 1 within 15,625 steps; by then the domain must have been drawn, and not
    // twice.
    let raw = [1.0 - 1e-6, 1e-6];
    let mut mixer = mixer(vec![stage(0, &raw)], Interpolate::Hold, 15_625, 64);
    while mixer.step() < 15_625 {
        mixer.next_step().unwrap();
    }
    assert_eq!(mixer.consumed(), [15_625 * 64 - 1, 1]);
}
