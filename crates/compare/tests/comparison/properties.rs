//! What may not change a comparison.

use cuvee_compare::{ArmResult, Comparison, Input, Role, Verdict, compare};
use proptest::prelude::*;

use crate::build::{Random, arm, input};

/// Two to four arms beside the baseline, of two domains, with effects of every size, and a run that
/// is not done here and there.
fn inputs() -> impl Strategy<Value = Input> {
    (2usize..5, 2usize..7, any::<u64>()).prop_map(|(arms, seeds, start)| {
        let mut random = Random(start);
        let mut made = input(seeds, &[("web", 0.75), ("code", 0.25)]);
        let bases = random.normals(seeds, 0.2);
        for index in 0..=arms {
            let effect = [0.0, 0.004, 0.05][random.next() as usize % 3] * random.normal();
            let noise = 0.001 + 0.03 * random.uniform();
            let runs = (0..seeds).map(|seed| {
                let of_seed = 3.0 + bases[seed] + effect + noise * random.normal();
                let mut losses =
                    |n: usize| (0..n).map(|_| of_seed + 0.01 * random.normal()).collect();
                let run = vec![losses(4), losses(3)];
                (!random.next().is_multiple_of(12)).then_some(run)
            });
            let role = match index {
                0 => Role::Baseline,
                _ if index == arms => Role::Replica,
                _ => Role::Arm,
            };
            made.arms.push(arm(&format!("arm{index}"), role, runs.collect()));
        }
        made
    })
}

fn by_name<'a>(found: &'a Comparison, name: &str) -> &'a ArmResult {
    found.arms.iter().find(|arm| arm.name == name).unwrap()
}

fn close(a: Option<f64>, b: Option<f64>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => (a - b).abs() <= 1e-9 * (1.0 + a.abs()),
        (a, b) => a.is_none() && b.is_none(),
    }
}

/// The numbers of the difference, negated where `sign` is −1.
fn same_finding(a: &ArmResult, b: &ArmResult, sign: f64) -> bool {
    let numbers = |arm: &ArmResult| {
        [
            arm.difference_ci95,
            arm.sd_seeds,
            arm.se_windows,
            arm.p_value,
            arm.p_holm,
            arm.mde,
            arm.equivalent_within,
        ]
    };
    let pairs = numbers(a).into_iter().zip(numbers(b));
    close(a.difference.map(|d| sign * d), b.difference)
        && a.n == b.n
        && a.seeds_needed == b.seeds_needed
        && pairs.into_iter().all(|(a, b)| close(a, b))
}

/// Changes every window loss by its seed.
fn change_losses(made: &mut Input, change: impl Fn(usize, f64) -> f64) {
    for arm in &mut made.arms {
        for (seed, run) in arm.runs.iter_mut().enumerate() {
            let losses = run.iter_mut().flat_map(|run| run.windows.iter_mut().flatten());
            losses.for_each(|loss| *loss = change(seed, *loss));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn the_order_of_seeds_and_arms_changes_nothing(made in inputs(), turn in 0usize..5) {
        let found = compare(&made).unwrap();
        let mut turned = made;
        let seeds = turned.seeds.len();
        turned.seeds.rotate_left(turn % seeds);
        for arm in &mut turned.arms {
            arm.runs.rotate_left(turn % seeds);
        }
        let arms = turned.arms.len();
        turned.arms.rotate_left(turn % arms);
        let other = compare(&turned).unwrap();
        for arm in &found.arms {
            let after = by_name(&other, &arm.name);
            prop_assert!(same_finding(arm, after, 1.0), "{arm:?}\n{after:?}");
            prop_assert_eq!(arm.verdict, after.verdict);
            for (a, b) in arm.domains.iter().zip(&after.domains) {
                prop_assert!(close(a.p_holm, b.p_holm) && a.verdict == b.verdict);
            }
        }
        prop_assert_eq!(other.arms[0].role, Role::Baseline);
        prop_assert_eq!(other.arms[arms - 1].role, Role::Replica);
    }

    #[test]
    fn what_a_seed_adds_to_all_arms_changes_nothing(
        made in inputs(),
        constants in prop::collection::vec(-0.5f64..0.5, 7),
    ) {
        let found = compare(&made).unwrap();
        let mut moved = made;
        change_losses(&mut moved, |seed, loss| loss + constants[seed]);
        let other = compare(&moved).unwrap();
        for (a, b) in found.arms.iter().zip(&other.arms) {
            prop_assert!(same_finding(a, b, 1.0), "{a:?}\n{b:?}");
            prop_assert_eq!(a.verdict, b.verdict);
        }
    }

    #[test]
    fn negating_the_differences_swaps_better_and_worse(made in inputs()) {
        let found = compare(&made).unwrap();
        let mut negated = made;
        change_losses(&mut negated, |_, loss| 6.0 - loss);
        let other = compare(&negated).unwrap();
        for (a, b) in found.arms.iter().zip(&other.arms) {
            prop_assert!(same_finding(a, b, -1.0), "{a:?}\n{b:?}");
            let expected = match a.verdict {
                Verdict::Better => Verdict::Worse,
                Verdict::Worse => Verdict::Better,
                same => same,
            };
            prop_assert_eq!(b.verdict, expected);
        }
    }

    #[test]
    fn verdicts_follow_from_the_numbers_beside_them(made in inputs()) {
        let found = compare(&made).unwrap();
        for arm in &found.arms[1..] {
            let significant = arm.p_holm.is_some_and(|p| p <= found.alpha);
            let within = arm.equivalent_within.is_some_and(|w| w < found.margin);
            let expected = match arm.difference {
                _ if arm.n < 2 => Verdict::None,
                Some(d) if significant && d < 0.0 => Verdict::Better,
                _ if significant => Verdict::Worse,
                _ if within => Verdict::Equivalent,
                _ => Verdict::Undecided,
            };
            prop_assert_eq!(arm.verdict, expected);
            prop_assert!(arm.sentence.ends_with('.') && arm.sentence.starts_with(&arm.name));
            if let (Some(raw), Some(corrected)) = (arm.p_value, arm.p_holm) {
                prop_assert!(corrected >= raw);
            }
            for domain in &arm.domains {
                if let (Some(raw), Some(corrected)) = (domain.p_value, domain.p_holm) {
                    prop_assert!(corrected >= raw);
                }
            }
        }
    }
}
