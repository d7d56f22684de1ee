//! Makes the document of a comparison from the losses of its runs.

use crate::document::{
    ArmResult, ComparedDomain, Comparison, Design, DomainResult, LookResult, Role, Verdict,
};
use crate::error::Result;
use crate::holm::holm;
use crate::input::Input;
use crate::looks::nominal_p;
use crate::paired::{Paired, mean_and_deviation, mean_half_width};
use crate::power::{detectable, seeds_needed};
use crate::runs::{Pairing, Runs};
use crate::sentence::{arm_sentence, notes, overall_sentence};
use crate::tokens::{Curve, NoSpeedup, nats_per_percent, speedup};
use crate::verdict::{Circumstances, Test, judge, test_at_looks, test_once, within};

/// Compares the arms of `input` with its baseline.
///
/// # Errors
/// Runs that do not belong together: other domains, other windows, not one baseline; or a setting
/// out of its range.
pub fn compare(input: &Input) -> Result<Comparison> {
    input.check()?;
    let importances: Vec<f64> = input.domains.iter().map(|domain| domain.importance).collect();
    // The baseline first, its repetition last.
    let of_role = |role| input.arms.iter().filter(move |arm| arm.role == role);
    let ordered = of_role(Role::Baseline).chain(of_role(Role::Arm)).chain(of_role(Role::Replica));
    let runs: Vec<Runs<'_>> = ordered.map(|arm| Runs::new(arm, &importances)).collect();
    // `check` saw that there is one.
    let baseline = &runs[0];
    let pairings: Vec<Pairing<'_>> =
        runs[1..].iter().map(|runs| Pairing::new(input, runs, baseline)).collect();
    let study = Study::new(input, baseline);
    let tests = study.tests(&runs[1..], &pairings);
    let mut arms = vec![study.baseline_result(baseline)];
    for ((runs, pairing), test) in runs[1..].iter().zip(&pairings).zip(&tests) {
        arms.push(study.arm_result(runs, pairing, test.as_ref()));
    }
    study.judge_domains(&mut arms[1..], &runs[1..], &pairings);
    let replica = arms.iter().find(|arm| arm.role == Role::Replica);
    let baseline_noise = replica.and_then(|arm| arm.sd_seeds);
    let aa_verdict = replica.map(|arm| arm.verdict);
    for arm in &mut arms {
        (arm.baseline_noise, arm.aa_verdict) = (baseline_noise, aa_verdict);
    }
    let mut comparison = Comparison {
        sentence: String::new(),
        baseline: baseline.input.name.clone(),
        seeds: input.seeds.clone(),
        design: Design::PairedBySeed,
        metric: input.settings.metric.clone(),
        margin: input.settings.margin,
        alpha: input.settings.alpha,
        looks: study.looks(&arms),
        exploratory: study.exploratory,
        domains: study.domains(),
        baseline_noise,
        aa_verdict,
        signal_to_noise: signal_to_noise(&arms),
        nats_per_percent_of_tokens: study.exchange_rate(baseline),
        arms,
        notes: Vec::new(),
    };
    let sentences: Vec<String> =
        comparison.arms.iter().map(|arm| arm_sentence(arm, &comparison)).collect();
    for (arm, sentence) in comparison.arms.iter_mut().zip(sentences) {
        arm.sentence = sentence;
    }
    comparison.sentence = overall_sentence(&comparison);
    comparison.notes = notes(&comparison);
    Ok(comparison)
}

/// What all arms share.
struct Study<'a> {
    input: &'a Input,
    /// m, arms in the family of tests.
    family: usize,
    /// p at each look for one arm, after correction for the arms.
    nominal: Vec<f64>,
    exploratory: bool,
    baseline: &'a Runs<'a>,
}

impl<'a> Study<'a> {
    fn new(input: &'a Input, baseline: &'a Runs<'a>) -> Self {
        let settings = &input.settings;
        let family = input.arms.iter().filter(|arm| arm.role == Role::Arm).count();
        let nominal = nominal_p(&settings.looks, settings.alpha / family.max(1) as f64);
        let exploratory = settings.seeds_added && settings.looks.is_empty();
        Self { input, family, nominal, exploratory, baseline }
    }

    /// The test of each arm: those of the family together, the baseline's repetition by itself.
    fn tests(&self, runs: &[Runs<'_>], pairings: &[Pairing<'_>]) -> Vec<Option<Test>> {
        let running = |index: usize| {
            let stopped = runs[index].input.stopped_at.is_some();
            (!stopped).then_some(&pairings[index])
        };
        let of_role = |role: Role| -> Vec<usize> {
            (0..runs.len()).filter(|index| runs[*index].input.role == role).collect()
        };
        let settings = &self.input.settings;
        let mut tests: Vec<Option<Test>> = vec![None; runs.len()];
        let family: Vec<usize> = of_role(Role::Arm);
        let arms: Vec<Option<&Pairing<'_>>> = family.iter().map(|index| running(*index)).collect();
        let found = match settings.looks.is_empty() {
            true => test_once(&arms),
            false => test_at_looks(&arms, &settings.looks, settings.alpha),
        };
        for (index, test) in family.into_iter().zip(found) {
            tests[index] = test;
        }
        for index in of_role(Role::Replica) {
            tests[index] = test_once(&[running(index)]).pop().flatten();
        }
        tests
    }

    fn circumstances(&self, runs: &Runs<'_>) -> Circumstances {
        Circumstances {
            alpha: self.input.settings.alpha,
            margin: self.input.settings.margin,
            arm_diverged: !runs.diverged.is_empty(),
            baseline_diverged: !self.baseline.diverged.is_empty(),
        }
    }

    /// The level at which one arm's difference must be significant, at the strictest step of the
    /// correction: what could have been seen goes by it.
    fn level(&self, role: Role, look: Option<usize>) -> f64 {
        match (role, look.or(self.nominal.len().checked_sub(1))) {
            (Role::Arm, Some(look)) => self.nominal[look],
            (Role::Arm, None) => self.input.settings.alpha / self.family.max(1) as f64,
            _ => self.input.settings.alpha,
        }
    }

    fn baseline_result(&self, runs: &Runs<'_>) -> ArmResult {
        let losses = runs.known();
        let mean = mean_and_deviation(&losses).map(|(mean, _)| mean);
        let domain = |index: usize| {
            let losses = runs.known_of_domain(index);
            DomainResult {
                name: self.input.domains[index].name.clone(),
                loss: mean_and_deviation(&losses).map(|(mean, _)| mean),
                ci95: mean_half_width(&losses, 0.05),
                difference: None,
                difference_ci95: None,
                p_value: None,
                p_holm: None,
                verdict: Verdict::None,
            }
        };
        let domains: Vec<DomainResult> = (0..self.input.domains.len()).map(domain).collect();
        let worst = domains
            .iter()
            .filter_map(|domain| Some((domain.loss?, &domain.name)))
            .max_by(|a, b| a.0.total_cmp(&b.0));
        ArmResult {
            name: runs.input.name.clone(),
            role: runs.input.role,
            config: runs.input.config.clone(),
            seeds: self.input.seeds.clone(),
            losses: runs.losses.clone(),
            tokens: runs.input.tokens,
            mean_loss: mean,
            ci95: mean_half_width(&losses, 0.05),
            worst_domain_loss: worst.map(|(loss, _)| loss),
            worst_domain: worst.map(|(_, name)| name.clone()),
            worst_domain_difference: None,
            worst_domain_difference_ci95: None,
            diverged: runs.diverged.iter().map(|index| self.input.seeds[*index]).collect(),
            n: losses.len(),
            differences: vec![None; self.input.seeds.len()],
            difference: None,
            difference_ci95: None,
            sd_seeds: None,
            se_windows: None,
            p_value: None,
            p_holm: None,
            decided_at: None,
            mde: None,
            seeds_needed: None,
            equivalent_within: None,
            speedup: None,
            speedup_ci95: None,
            speedup_missing: None,
            verdict: Verdict::None,
            sentence: String::new(),
            learns: runs.input.learns,
            stopped_at: runs.input.stopped_at,
            exploratory: self.exploratory,
            design: Design::PairedBySeed,
            baseline_noise: None,
            aa_verdict: None,
            domains,
        }
    }

    fn arm_result(&self, runs: &Runs<'_>, pairing: &Pairing<'_>, test: Option<&Test>) -> ArmResult {
        let mut arm = self.baseline_result(runs);
        let settings = &self.input.settings;
        let paired = pairing.paired(pairing.seeds.len());
        let looks = &settings.looks;
        let reached = test.and_then(|test| test.look);
        let level = self.level(arm.role, reached);
        arm.n = paired.seeds();
        arm.differences =
            (0..self.input.seeds.len()).map(|seed| pairing.difference(seed)).collect();
        arm.difference = paired.mean();
        arm.difference_ci95 = paired.half_width(0.05);
        arm.sd_seeds = paired.deviation();
        arm.se_windows = paired.window_error();
        arm.p_value = paired.p_value();
        arm.equivalent_within = within(&paired, settings.alpha).or(paired.is_zero().then_some(0.0));
        let noise = paired.deviation().filter(|_| !paired.is_noiseless());
        let (n, windows) = (paired.seeds(), paired.window_error().unwrap_or(0.0));
        // The test divides by √(s²/n + V_w).
        let of_a_seed = |s: f64| s.hypot((n as f64).sqrt() * windows);
        arm.mde = noise.map(|s| detectable(n, level) * of_a_seed(s));
        arm.seeds_needed = noise.and_then(|s| seeds_needed(settings.margin, s, windows, n, level));
        if let Some(test) = test {
            arm.p_holm = test.corrected;
            let given = self.circumstances(runs);
            arm.verdict = judge(&test.paired, test.corrected, test.last, given);
            let called = matches!(arm.verdict, Verdict::Better | Verdict::Worse);
            arm.decided_at = reached.filter(|_| called).map(|look| looks[look]);
        }
        if runs.input.stopped_at.is_some() {
            arm.verdict = Verdict::Futile;
        }
        let worst = pairing.worst_differences();
        arm.worst_domain_difference = mean_and_deviation(&worst).map(|(mean, _)| mean);
        arm.worst_domain_difference_ci95 = mean_half_width(&worst, 0.05);
        for (index, domain) in arm.domains.iter_mut().enumerate() {
            let paired = pairing.paired_of_domain(index);
            domain.difference = paired.mean();
            domain.difference_ci95 = paired.half_width(0.05);
            domain.p_value = paired.p_value();
        }
        self.add_speedup(&mut arm, runs, pairing);
        arm
    }

    /// The second family: every arm in every domain.
    fn judge_domains(&self, arms: &mut [ArmResult], runs: &[Runs<'_>], pairings: &[Pairing<'_>]) {
        let domains = self.input.domains.len();
        for role in [Role::Arm, Role::Replica] {
            let members: Vec<usize> =
                (0..arms.len()).filter(|index| arms[*index].role == role).collect();
            let p: Vec<Option<f64>> = members
                .iter()
                .flat_map(|index| arms[*index].domains.iter().map(|domain| domain.p_value))
                .collect();
            let corrected = holm(&p, members.len() * domains);
            for (index, corrected) in members.into_iter().zip(corrected.chunks(domains.max(1))) {
                let given = self.circumstances(&runs[index]);
                for (domain, p) in corrected.iter().enumerate() {
                    let paired: Paired = pairings[index].paired_of_domain(domain);
                    let result = &mut arms[index].domains[domain];
                    result.p_holm = *p;
                    result.verdict = judge(&paired, *p, true, given);
                }
            }
        }
    }

    fn add_speedup(&self, arm: &mut ArmResult, runs: &Runs<'_>, pairing: &Pairing<'_>) {
        let curves = |seed: &usize| Some((self.baseline.curve(*seed)?, runs.curve(*seed)?));
        let pairs: Vec<(&Curve, &Curve)> = pairing.seeds.iter().filter_map(curves).collect();
        match speedup(&pairs, self.input.settings.schedule) {
            Ok(found) => (arm.speedup, arm.speedup_ci95) = (Some(found.ratio), found.ci95),
            // That no run is done yet is seen without it.
            Err(NoSpeedup::NoPair) => {}
            Err(reason) => arm.speedup_missing = Some(reason.to_string()),
        }
    }

    fn exchange_rate(&self, baseline: &Runs<'_>) -> Option<f64> {
        let curves: Vec<&Curve> =
            (0..self.input.seeds.len()).filter_map(|seed| baseline.curve(seed)).collect();
        nats_per_percent(&curves, self.input.settings.schedule)
    }

    fn domains(&self) -> Vec<ComparedDomain> {
        let domains = self.input.domains.iter().zip(self.input.windows());
        let compared = domains.map(|(domain, windows)| ComparedDomain {
            name: domain.name.clone(),
            importance: domain.importance,
            windows,
        });
        compared.collect()
    }

    fn looks(&self, arms: &[ArmResult]) -> Vec<LookResult> {
        let look = |(seeds, nominal): (&usize, &f64)| LookResult {
            seeds: *seeds,
            nominal: *nominal,
            decided: arms
                .iter()
                .filter(|arm| arm.decided_at == Some(*seeds))
                .map(|arm| arm.name.clone())
                .collect(),
        };
        self.input.settings.looks.iter().zip(&self.nominal).map(look).collect()
    }
}

/// The standard deviation of the arms' mean differences, the baseline's 0 among them, over the root
/// mean square of their s. The baseline's repetition is no arm.
fn signal_to_noise(arms: &[ArmResult]) -> Option<f64> {
    let found: Vec<(f64, f64)> = arms
        .iter()
        .filter(|arm| arm.role == Role::Arm)
        .filter_map(|arm| Some((arm.difference?, arm.sd_seeds?)))
        .collect();
    let means: Vec<f64> = found.iter().map(|(mean, _)| *mean).chain([0.0]).collect();
    let (_, spread) = mean_and_deviation(&means)?;
    let squares: f64 = found.iter().map(|(_, s)| s * s).sum();
    let noise = (squares / found.len() as f64).sqrt();
    spread.map(|spread| spread / noise).filter(|ratio| ratio.is_finite())
}
