//! Inputs for the tests, and random numbers that are the same on every machine.

use cuvee_compare::{ArmInput, DomainInput, Input, Metric, Role, RunInput, Schedule, Settings};

/// Window losses of one run, by domain.
pub type Windows = Vec<Vec<f64>>;

/// An input of `domains` (name, importance) without arms.
pub fn input(seeds: usize, domains: &[(&str, f64)]) -> Input {
    let metric = Metric {
        name: "Σ π_i L_i on valid at step 100".to_owned(),
        split: "valid".to_owned(),
        step: 100,
        evaluations: 1,
    };
    let domain = |(name, importance): &(&str, f64)| DomainInput {
        name: (*name).to_owned(),
        importance: *importance,
    };
    Input {
        settings: Settings {
            margin: 0.01,
            alpha: 0.05,
            looks: vec![],
            seeds_added: false,
            metric,
            schedule: Schedule::Constant,
        },
        seeds: (0..seeds as u64).collect(),
        domains: domains.iter().map(domain).collect(),
        arms: vec![],
    }
}

/// An arm whose runs have these window losses, without curves.
pub fn arm(name: &str, role: Role, runs: Vec<Option<Windows>>) -> ArmInput {
    let run = |windows: Option<Windows>| windows.map(|windows| RunInput { windows, curve: vec![] });
    ArmInput {
        name: name.to_owned(),
        role,
        learns: false,
        tokens: 1_000_000,
        config: vec![],
        stopped_at: None,
        runs: runs.into_iter().map(run).collect(),
    }
}

/// One domain `web` of one window; the first arm is the baseline, the last one its repetition if its
/// name ends in `~`.
pub fn plain(arms: &[(&str, &[f64])]) -> Input {
    let seeds = arms.first().map_or(0, |(_, losses)| losses.len());
    let mut made = input(seeds, &[("web", 1.0)]);
    for (index, (name, losses)) in arms.iter().enumerate() {
        let role = match index {
            0 => Role::Baseline,
            _ if name.ends_with('~') => Role::Replica,
            _ => Role::Arm,
        };
        let runs = losses.iter().map(|loss| Some(vec![vec![*loss]])).collect();
        made.arms.push(arm(name, role, runs));
    }
    made
}

/// SplitMix64 (Steele et al., 2014), and normal deviates by Box and Muller.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// In (0, 1].
    pub fn uniform(&mut self) -> f64 {
        ((self.next() >> 11) + 1) as f64 / (1u64 << 53) as f64
    }

    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * self.uniform().ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }

    pub fn normals(&mut self, count: usize, deviation: f64) -> Vec<f64> {
        (0..count).map(|_| deviation * self.normal()).collect()
    }
}
