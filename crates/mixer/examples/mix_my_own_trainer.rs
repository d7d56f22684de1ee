//! A trainer of one's own that takes its batches from the mixer.
//!
//! `cargo run -p cuvee-mixer --example mix_my_own_trainer`
//!
//! The model is three floats θ, a sequence is a point x of its domain, and its loss is ½‖θ − x‖².
//! What a real trainer has in their place are a network and a window of tokens; what it does with
//! the mixer is the same: draw, train, tell, and now and then save.

use cuvee_mixer::seed::{self, CounterRng};
use cuvee_mixer::strategy::{Erma, Va};
use cuvee_mixer::{
    Direction, DomainInfo, Draw, GradientStatistics, LossStatistics, Mixer, MixerError, MixerState,
    MixtureSpec, Objective, Observation, RunSize, StepDraw, StrategySpec,
};

const RUN: RunSize = RunSize { steps: 60, batch_size: 8, context: 128, seed: 1 };
const LEARNING_RATE: f64 = 0.1;

/// Centre and spread of each domain's points: `web` is large and noisy, `math` small and clean.
const CENTRES: [[f64; 3]; 3] = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];
const SPREADS: [f64; 3] = [2.0, 0.5, 0.2];

type Parameters = [f64; 3];

/// VA chooses what is sampled and ERMA what counts; both learn while training.
fn mixer() -> Result<Mixer, MixerError> {
    let spec = MixtureSpec {
        objective: Objective::Importance,
        sampling: StrategySpec::Va(Va::default()),
        loss: StrategySpec::Erma(Erma { every: 10, ..Erma::default() }),
        ..MixtureSpec::default()
    };
    let domains = [
        DomainInfo::new("web", 900_000),
        DomainInfo::new("code", 200_000),
        DomainInfo { importance: 2.0, ..DomainInfo::new("math", 30_000) },
    ];
    Mixer::new(&spec, &domains, &RUN)
}

/// The point that stands at `start` in the stream of a domain.
fn point(domain: usize, start: u64) -> Parameters {
    let noise = CounterRng::new(seed::derive(7, "points")).nested(domain as u64).nested(start);
    std::array::from_fn(|i| CENTRES[domain][i] + SPREADS[domain] * noise.normal(i as u64))
}

/// Loss and gradient of one sequence.
fn backward(theta: &Parameters, x: &Parameters) -> (f64, Parameters) {
    let gradient: Parameters = std::array::from_fn(|i| theta[i] - x[i]);
    (0.5 * gradient.iter().map(|g| g * g).sum::<f64>(), gradient)
}

/// Takes an SGD step on the batch and returns what the mixer wants to know of it.
fn train(theta: &mut Parameters, draw: &StepDraw) -> Observation {
    let sequence = |draw: &Draw| backward(theta, &point(draw.domain.0, draw.start));
    let (losses, gradients): (Vec<f64>, Vec<Parameters>) = draw.draws.iter().map(sequence).unzip();
    // Each sequence's loss counts `multiplier` times: the mixer's whole influence on the gradient.
    for (draw, gradient) in draw.draws.iter().zip(&gradients) {
        for (parameter, g) in theta.iter_mut().zip(gradient) {
            *parameter -= LEARNING_RATE * draw.multiplier * g / RUN.batch_size as f64;
        }
    }
    // Gradient statistics of each domain in the batch, which VA asks for. A variance takes two
    // sequences; a single one says where its gradient points.
    let statistics = |domain: usize| {
        let own = draw.draws.iter().zip(&gradients).filter(|(draw, _)| draw.domain.0 == domain);
        let own: Vec<&Parameters> = own.map(|(_, gradient)| gradient).collect();
        let squares: f64 = own.iter().flat_map(|g| g.iter()).map(|g| g * g).sum();
        let sums = (0..3).map(|i| own.iter().map(|gradient| gradient[i]).sum::<f64>());
        let sum_squared: f64 = sums.map(|sum| sum * sum).sum();
        let direction =
            (own.len() == 1).then(|| Direction::of(own.iter().flat_map(|g| g.iter().copied())));
        (!own.is_empty()).then(|| {
            GradientStatistics::from_sums(own.len(), squares, sum_squared).with_direction(direction)
        })
    };
    draw.observation(&losses).with_gradient((0..3).map(statistics).collect())
}

/// Losses on 20 points of each domain that are never trained on, which ERMA asks for.
fn held_out(theta: &Parameters) -> Vec<Option<LossStatistics>> {
    let losses = |domain: usize| -> Vec<f64> {
        (0..20).map(|j| backward(theta, &point(domain, u64::MAX - j)).0).collect()
    };
    (0..3).map(|domain| LossStatistics::from_losses(&losses(domain))).collect()
}

/// Trains until `end` steps are done and returns what was drawn.
fn run(mixer: &mut Mixer, theta: &mut Parameters, end: u64) -> Result<Vec<StepDraw>, MixerError> {
    let request = mixer.observation_request();
    let mut steps = Vec::new();
    while mixer.step() < end {
        let draw = mixer.next_step()?;
        let mut observation = train(theta, &draw);
        if request.held_out_at(mixer.step()).is_some() {
            observation = observation.with_held_out(held_out(theta));
        }
        mixer.observe(&observation);
        steps.push(draw);
    }
    Ok(steps)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (mut mixer_at_work, mut theta) = (mixer()?, [0.0; 3]);
    run(&mut mixer_at_work, &mut theta, 30)?;

    // A checkpoint holds the parameters and the mixer's state.
    let (saved_theta, saved) = (theta, serde_json::to_string_pretty(&mixer_at_work.state())?);
    println!("state after 30 steps, {} bytes of JSON", saved.len());

    let rest = run(&mut mixer_at_work, &mut theta, RUN.steps)?;
    for draw in rest.iter().step_by(10) {
        let (p, w) = (draw.sampling.values(), draw.loss.values());
        println!("step {:2}  p {p:.3?}  w {w:.3?}  counts {:?}", draw.step, draw.counts);
    }

    // A fresh mixer that is given the state goes on exactly as the first one did.
    let state: MixerState = serde_json::from_str(&saved)?;
    let (mut resumed, mut resumed_theta) = (mixer()?, saved_theta);
    resumed.restore(&state)?;
    let again = run(&mut resumed, &mut resumed_theta, RUN.steps)?;
    if again != rest || resumed_theta != theta || resumed.state() != mixer_at_work.state() {
        return Err("the resumed run differs".into());
    }
    println!("resumed from the state: the same {} steps, to the bit", again.len());
    Ok(())
}
