//! From a config and its prepared domains to everything the loop needs, checked: nothing is refused
//! later that could be refused here.

use std::fmt;
use std::path::Path;

use cuvee_data::{Domain, Split, Tokenizer};
use cuvee_mixer::{DomainInfo, DomainPlan, EpochDocuments, Mixer, RunSize, StrategySpec, rule};
use cuvee_train::{
    Averaging, DeviceSpec, Engine, ExportSpec, LearningRate, ModelConfig, OptimizerCost,
    OptimizerKind, OptimizerSpec, ReadingOrder, RunPlan, TrainSpec, build_engine, check_documents,
    check_split, engine_from_parameters, hf, least_kept, optimizer_cost, peak_learning_rate,
};
use cuvee_words::{plural, printable_path};
use serde::Serialize;

use crate::config::{Config, ConfigError};

/// What a plan says beside its numbers; what follows a first line belongs to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Remark {
    /// What is so.
    Fact(String),
    /// What may have been overlooked.
    Note(String),
    /// What is hardly meant.
    Warning(String),
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Remark::Fact(text) => f.write_str(text),
            Remark::Note(text) => write!(f, "note: {text}"),
            Remark::Warning(text) => write!(f, "warning: {text}"),
        }
    }
}

/// A run that can start.
pub struct Plan {
    /// The model's shape.
    pub model: ModelConfig,
    /// The loop's knobs.
    pub run: RunPlan,
    /// What the mixer is going to do, a row a domain.
    pub domains: Vec<DomainPlan>,
    /// Documents of each domain's training split.
    pub documents: Vec<u64>,
    /// sha256 of the weights that the run starts from, once they were read for it.
    pub init_sha256: Option<String>,
    /// What the optimizer's state takes, and its updates.
    pub optimizer: OptimizerCost,
    /// How the trained model is handed on.
    pub export: ExportSpec,
    /// Whether the model that the run starts from gets the rows of the run's tokenizer.
    resizes: bool,
    /// What is to be said of the config, before anything of its domains.
    notes: Vec<Remark>,
    /// B_eff = B / Σ α²/p: the size of the batch drawn as the objective asks whose gradient varies
    /// as much.
    pub effective_batch_size: f64,
    /// Whether sampling weights follow the scatter of the gradients.
    samples_by_variance: bool,
    /// Each domain's limit on epochs.
    max_epochs: Vec<Option<f64>>,
}

/// `plan.json`: what was going to be done, before it was done.
#[derive(Serialize)]
pub struct PlanDocument<'a> {
    /// Optimizer updates.
    pub steps: u64,
    /// Tokens of all batches.
    pub tokens: u64,
    /// Sequences a batch.
    pub batch_size: usize,
    /// Sequences of the batch drawn as the objective asks whose gradient varies as much.
    pub effective_batch_size: f64,
    /// Tokens a sequence.
    pub context: usize,
    /// Engine that computes it.
    pub engine: &'a str,
    /// Number type of its arithmetic.
    pub precision: String,
    /// Where it is computed.
    pub device: DeviceSpec,
    /// Threads that it computes on.
    pub threads: usize,
    /// sha256 of the weights that it starts from, where it starts from a model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init_sha256: Option<&'a str>,
    /// Parameters of the model.
    pub parameters: u64,
    /// Floating-point operations of the whole run, those of the optimizer among them.
    pub flops: f64,
    /// The optimizer, and its settings.
    pub optimizer: &'a OptimizerSpec,
    /// Bytes of its state.
    pub optimizer_bytes: u64,
    /// The peak of the learning rate, of whatever has none of its own.
    pub lr: f64,
    /// The model's shape.
    pub model: &'a ModelConfig,
    /// A row a domain.
    pub domains: &'a [DomainPlan],
}

impl Plan {
    /// Checks the whole request against the data and lays out the run, with the mixer that will
    /// draw it.
    ///
    /// # Errors
    /// Anything about the mixture, model or schedule that cannot be done, before any of it is done.
    pub fn new(
        config: &Config,
        domains: &[Domain],
        vocab_size: usize,
        run_folder: &Path,
    ) -> anyhow::Result<(Self, Mixer)> {
        let importances = config.importances(domains)?;
        let train = config.train.clone();
        train.validate()?;
        config.eval.validate()?;
        config.checkpoint.validate()?;
        config.export.validate()?;
        let steps = train.total_steps()?;
        if steps.checked_mul(train.tokens_per_step()).is_none() {
            return Err(ConfigError(format!(
                "train.steps = {steps}: expected a number of tokens that can be counted, found {steps} × {}\nhint: say how many tokens to train on with train.tokens",
                train.tokens_per_step()
            ))
            .into());
        }
        let model = hf::resolve_model(&config.model, vocab_size, train.context, &config.base)?;
        let init = config.model.init_dir(&config.base)?;
        let inherited = init.as_deref().map(hf::Inherited::read).transpose()?;
        let mut notes = Vec::new();
        if let Some(init) = &init {
            let trained = hf::read_config(init)?.max_context;
            notes.extend(longer_context(train.context, trained, init).map(Remark::Note));
        }
        let infos: Vec<DomainInfo> = domains
            .iter()
            .zip(importances)
            .map(|(d, importance)| DomainInfo {
                name: d.name.clone(),
                importance,
                tokens: d.shard(Split::Train).tokens(),
                max_epochs: config.domains.get(d.entry).and_then(|c| c.max_epochs),
            })
            .collect();
        let run = RunSize {
            steps,
            batch_size: train.batch_size,
            context: train.context,
            seed: config.order_seed.unwrap_or(config.seed),
        };
        let mixer = Mixer::new(&config.mixture, &infos, &run)
            .map_err(|error| ConfigError(error.in_config("mixture", "train")))?;
        let optimizer = optimizer_cost(&train, &model)?;
        notes.extend(decay_warning(least_kept(&train, &model)?));
        check_split(domains, Split::Valid, train.context)?;
        check_documents(domains, &train)?;
        let average = match &config.average {
            Some(average) => Some(average.resolve(steps)?),
            None => None,
        };
        let documents: Vec<u64> =
            domains.iter().map(|d| d.shard(Split::Train).documents()).collect();
        notes.extend(
            average.map(|average| Remark::Note(average_note(average, steps, model.parameters()))),
        );
        if train.document_mask {
            notes.push(Remark::Note(
                "tokens attend to their own document alone, in evaluations too".to_owned(),
            ));
        }
        if train.order == ReadingOrder::Documents {
            notes.push(Remark::Note(format!(
                "documents come in another order each epoch: the index of theirs takes {}",
                cuvee_report::bytes(EpochDocuments::bytes(documents.iter().sum()))
            )));
        }
        let estimator = mixer.observation_request().gradient.map(|gradient| gradient.estimator);
        if let Some((estimator, reason)) = estimator.and_then(|e| Some((e, e.deprecated()?))) {
            let name = estimator.name();
            notes.push(Remark::Warning(format!("variance = \"{name}\" is deprecated: {reason}")));
        }
        let importance = mixer.importance().clone();
        let plan = Self {
            domains: mixer.plan().to_vec(),
            documents,
            effective_batch_size: mixer.effective_batch_size(),
            samples_by_variance: matches!(config.mixture.sampling, StrategySpec::Va(_)),
            max_epochs: infos.iter().map(|info| info.max_epochs).collect(),
            run: RunPlan {
                steps,
                eval: config.eval.clone(),
                checkpoint: config.checkpoint.clone(),
                average,
                raw: config.average.as_ref().is_some_and(|average| average.raw),
                importance,
                checkpoints: run_folder.join("checkpoints"),
                inherited,
                train,
            },
            model,
            init_sha256: None,
            optimizer,
            export: config.export,
            resizes: config.model.resizes(),
            notes,
        };
        Ok((plan, mixer))
    }

    /// Takes in what the weights in `init` are, if the run starts from any, and what of them the
    /// run's tokenizer keeps: reads them whole.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn know_init(&mut self, init: Option<&Path>, tokenizer: &Tokenizer) -> anyhow::Result<()> {
        let Some(init) = init else { return Ok(()) };
        self.init_sha256 = Some(hf::weights_sha256(init)?);
        if self.resizes {
            let rows = hf::vocabulary_rows(init, self.model.vocab_size, tokenizer)?;
            self.run.inherited = self.run.inherited.take().map(|model| model.translated(&rows));
            self.notes.push(Remark::Note(rows.words()));
        }
        Ok(())
    }

    /// The engine at the start of the run: the parameters of the model in `init`, or drawn from
    /// `seed`.
    ///
    /// # Errors
    /// A model that is not the plan's, or an engine that cannot be built here.
    pub fn engine(
        &self,
        init: Option<&Path>,
        tokenizer: &Tokenizer,
        device: DeviceSpec,
        seed: u64,
    ) -> anyhow::Result<Box<dyn Engine>> {
        let (model, train) = (&self.model, &self.run.train);
        Ok(match init {
            Some(init) if self.resizes => {
                let rows = hf::vocabulary_rows(init, model.vocab_size, tokenizer)?;
                let parameters = hf::open_resized(init, model, &rows)?;
                engine_from_parameters(model, train, device, &parameters)?
            }
            Some(init) => {
                let parameters = hf::open_initial(init, model, tokenizer)?;
                engine_from_parameters(model, train, device, &parameters)?
            }
            None => build_engine(model, train, device, seed)?,
        })
    }

    /// Notes where documents end with another token than the texts of the model that the run starts
    /// from.
    /// `named` tells that the config names the token.
    pub fn compare_ends(&mut self, tokenizer: &Tokenizer, named: bool) {
        let ends = self.run.inherited.as_ref().map_or(&[][..], |model| model.ends());
        let end = tokenizer.end_of_text();
        if !ends.is_empty() && !ends.contains(&end) {
            let ends: Vec<String> = ends.iter().map(u32::to_string).collect();
            self.notes.push(Remark::Note(format!(
                "documents end with `{}` (id {end}), the texts of the model that model.init names with id {}{}",
                tokenizer.end_of_text_token(),
                ends.join(" or "),
                match named {
                    true => "; without tokenizer.end_of_text they would end as the model's do",
                    false => "",
                }
            )));
        }
    }

    /// Tokens of all batches.
    pub fn tokens(&self) -> u64 {
        self.run.steps * self.run.train.tokens_per_step()
    }

    /// What the plan says of its batches and of sampling: the effective batch, what there is to
    /// win, and what deserves a second thought.
    ///
    /// `fresh` tells that the run begins, so that nothing is known of its gradients yet.
    pub fn remarks(&self, fresh: bool) -> Vec<Remark> {
        let batch_size = self.run.train.batch_size;
        let effective = self.effective_batch_size;
        let mut all = self.notes.clone();
        all.push(Remark::Fact(format!(
            "effective batch: {effective:.1} of {batch_size} {} (B / Σ α²/p)",
            plural(batch_size, "sequence")
        )));
        if effective < batch_size as f64 / 2.0 {
            all.extend(self.small_batch_warning());
        }
        all.extend(self.rate_remark());
        all.extend(self.optimizer_remarks());
        if fresh && self.samples_by_variance && self.domains.len() > 1 {
            let most = |ratio| 100.0 * (rule::largest_headroom(ratio) - 1.0);
            all.push(Remark::Fact(format!(
                "va: v̂ is not known yet. Where the domains' v are within a factor of 1.5 of each other, sampling by the objective has at most {:.0} % more gradient variance than the best; within a factor of 4, at most {:.0} %. `headroom` in metrics.jsonl says what there is",
                most(1.5),
                most(4.0)
            )));
        }
        let limited = self.domains.iter().zip(&self.max_epochs);
        all.extend(limited.filter_map(|(row, max)| epochs_remark(row, (*max)?)));
        all.extend(self.domains.iter().filter_map(hardly_drawn));
        all.extend(self.domains.iter().filter_map(repeated));
        all
    }

    /// Floating-point operations of the whole run.
    pub fn flops(&self) -> f64 {
        self.model_flops() + self.optimizer_flops()
    }

    /// Those of forward and backward.
    fn model_flops(&self) -> f64 {
        self.model.flops_per_token(self.run.train.context) as f64 * self.tokens() as f64
    }

    /// Those of the optimizer.
    fn optimizer_flops(&self) -> f64 {
        self.optimizer.flops * self.run.steps as f64
    }

    /// Where the learning rate comes from, if it is not given.
    fn rate_remark(&self) -> Option<Remark> {
        (self.run.train.lr == LearningRate::Auto).then(|| {
            Remark::Fact(format!(
                "lr = \"auto\": {:.3e} = 0.0047·(N/108M)^(−1/3) for N = {} parameters, the head among them and an embedding of its own not (Porian et al., 2024, for AdamW and 5M to 108M parameters)",
                peak_learning_rate(&self.run.train, &self.model),
                cuvee_report::count(self.model.multiplied_parameters() as f64)
            ))
        })
    }

    /// What another optimizer than AdamW moves and costs.
    fn optimizer_remarks(&self) -> Vec<Remark> {
        let train = &self.run.train;
        let spec = &train.optimizer;
        let peak = peak_learning_rate(train, &self.model);
        let rate = |own: Option<f64>| own.unwrap_or(peak);
        let state = cuvee_report::bytes(self.optimizer.bytes);
        let (fact, note) = match spec.name {
            OptimizerKind::Adamw => return Vec::new(),
            OptimizerKind::Sgd => (
                format!(
                    "optimizer: sgd, matrices of the layers at lr {}, all else at {peak} where it has none of its own; {state} of state",
                    rate(spec.lr)
                ),
                (spec.lr.is_none() && train.lr == TrainSpec::default().lr).then(|| {
                    format!(
                        "sgd moves everything at {peak}, the default, which is made for AdamW: thirty to a hundred times as much is usual\nhint: train.lr = 0.1"
                    )
                }),
            ),
            OptimizerKind::Muon => (
                format!(
                    "optimizer: muon for the matrices of the layers at lr {}, adamw for all else at {peak} where it has none of its own; {state} of state, {:.0} % more FLOPs",
                    rate(spec.lr),
                    100.0 * self.optimizer_flops() / self.model_flops()
                ),
                spec.lr.is_none().then(|| {
                    "muon moves the matrices at train.lr, too, and each singular value of its update is nearly the rate: several times AdamW's is usual\nhint: train.optimizer = { name = \"muon\", lr = 0.02 }".to_owned()
                }),
            ),
        };
        [Some(Remark::Fact(fact)), note.map(Remark::Note)].into_iter().flatten().collect()
    }

    fn small_batch_warning(&self) -> Option<Remark> {
        let largest = self.domains.iter().max_by(|a, b| a.multiplier.total_cmp(&b.multiplier))?;
        if largest.multiplier < 1.5 {
            return Some(Remark::Warning("in a later stage of the schedule the gradient varies like that of fewer than half the sequences, since the sampling weights are far from the objective there".to_owned()));
        }
        Some(Remark::Warning(format!(
            "the gradient varies like that of fewer than half the sequences, since the sampling weights are far from the objective: `{}` counts {:.2} times a sequence\nhint: sample `{}` more often (`sampling = \"importance\"` draws every domain as often as it matters), or give it less importance",
            largest.name, largest.multiplier, largest.name
        )))
    }

    /// What `plan.json` holds of a run on `engine`.
    pub fn document<'a>(&'a self, engine: &'a dyn Engine) -> PlanDocument<'a> {
        PlanDocument {
            steps: self.run.steps,
            tokens: self.tokens(),
            batch_size: self.run.train.batch_size,
            effective_batch_size: self.effective_batch_size,
            context: self.run.train.context,
            engine: engine.name(),
            precision: engine.precision().to_string(),
            device: engine.device(),
            threads: self.run.train.thread_count(),
            init_sha256: self.init_sha256.as_deref(),
            parameters: self.model.parameters(),
            flops: self.flops(),
            optimizer: &self.run.train.optimizer,
            optimizer_bytes: self.optimizer.bytes,
            lr: peak_learning_rate(&self.run.train, &self.model),
            model: &self.model,
            domains: &self.domains,
        }
    }
}

/// What an average of the weights is and takes.
fn average_note(average: Averaging, steps: u64, parameters: u64) -> String {
    let what = match average {
        Averaging::Ema { decay } => {
            let half = 0.5f64.ln() / decay.ln();
            format!("an average of the weights that forgets half in {half:.0} steps")
        }
        Averaging::Last { snapshots, every: 1 } => {
            format!("the mean of the weights after the last {snapshots} steps")
        }
        Averaging::Last { snapshots, every } => {
            format!("the mean of {snapshots} weights, {every} steps apart, up to the last step's")
        }
    };
    format!(
        "evaluations from step {} on and the export are of {what}; it takes {} of memory",
        average.first(steps),
        cuvee_report::bytes(4 * parameters)
    )
}

/// Where sequences are longer than any that the model has seen.
fn longer_context(context: usize, trained: usize, init: &Path) -> Option<String> {
    (context > trained).then(|| {
        format!(
            "train.context = {context} goes beyond the {trained} positions that {} was made for \
             (max_position_embeddings): it has to learn those behind",
            printable_path(init)
        )
    })
}

/// What is to be said of a domain that an adaptive strategy may ask more of than its `max_epochs`
/// leave: nothing where there is twice what the plan takes.
fn epochs_remark(row: &DomainPlan, max_epochs: f64) -> Option<Remark> {
    let cap = row.largest_share?;
    let most = format!(
        "max_epochs = {max_epochs} lets `{}` have at most {:.1} % of a batch",
        row.name,
        100.0 * cap
    );
    if row.share >= cap * (1.0 - 1e-9) {
        Some(Remark::Warning(format!(
            "{most}, which is less than the strategy asks for: its multiplier is larger instead, and with it the gradient's variance\nhint: raise its max_epochs, add data to it, or train for fewer steps"
        )))
    } else if row.share > 0.5 * cap {
        Some(Remark::Note(format!(
            "{most}; where the strategy asks for more, its multiplier grows instead"
        )))
    } else {
        None
    }
}

/// Where a share is so small that the domain may not come up at all.
fn hardly_drawn(row: &DomainPlan) -> Option<Remark> {
    let expected = match row.sequences {
        0.0 => "will not be drawn in this run: its share is 0".to_owned(),
        few if few < 1.0 => format!(
            "will not be drawn in this run, or hardly: {} sequences are expected",
            if few < 0.01 { format!("{few:.0e}") } else { format!("{few:.2}") }
        ),
        _ => return None,
    };
    Some(Remark::Note(format!(
        "`{}` {expected}\nhint: give it a larger share{}",
        row.name,
        if row.sequences == 0.0 { "" } else { ", or the run more steps" }
    )))
}

/// Repetition is nearly free up to about four epochs: Muennighoff et al. 2023, arXiv:2305.16264.
fn repeated(row: &DomainPlan) -> Option<Remark> {
    (row.epochs > 4.0).then(|| {
        Remark::Note(format!(
            "`{}` is passed over {:.1} times; beyond about 4 passes repeated text teaches less and less",
            row.name, row.epochs
        ))
    })
}

/// Where a step at the peak leaves `kept` of what decays most, and that is no smaller number of the
/// same sign.
fn decay_warning(kept: f64) -> Option<Remark> {
    (kept <= 0.0).then(|| {
        Remark::Warning(format!(
            "learning rate · weight decay is {:?} at its peak: from 1 on a step takes more from a parameter than there is of it, and its sign turns\nhint: lower train.weight_decay, or the rate that it goes with (train.lr, train.optimizer)",
            (1.0 - kept) as f32
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decay_that_turns_signs_is_warned_of_and_none_that_does_not() {
        assert_eq!(decay_warning(1.0), None);
        assert_eq!(decay_warning(1e-9), None);
        for (kept, found) in [(0.0, " is 1.0 at"), (1.0 - 1.2, " is 1.2 at"), (-1e29, " is 1e29 ")]
        {
            let said = decay_warning(kept).map(|remark| remark.to_string()).unwrap_or_default();
            assert!(said.starts_with("warning: ") && said.contains(found), "{said}");
            assert!(said.contains("\nhint: "), "{said}");
        }
    }
}
