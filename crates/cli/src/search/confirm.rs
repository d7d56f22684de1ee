//! The confirmation: the proposal against the alternatives, with fresh seeds, by compare's rules.
//! Only what it finds is the result of a search.

use std::path::PathBuf;

use cuvee_compare::{ArmResult, Comparison, Verdict};
use cuvee_data::{Share, Split};
use cuvee_search::document::{
    ConfirmRole, ConfirmedMixture, PredictedMixture, ProposalDocument, ResultDocument,
};
use cuvee_search::output::{FORMATS, Output, Verified};
use cuvee_words::{counted, shell_path};

use super::declared::{Search, not_yet};
use super::design::{mixture_spec, refused};
use super::registration::write_document;
use crate::compare::{CompareArgs, of_config};
use crate::compare_spec::REPLICA;
use crate::config::Config;
use crate::report::write_search_page;
use crate::session::{Common, Session};
use crate::sweep::{self, Status};

/// Where the confirmation is declared once it has begun, in the folder of a search.
pub const COMPARISON: &str = "confirm/compare.json";

/// Its config, its folder, its result, the mixture as a config fragment, and the folder of the same
/// for other programs.
const CONFIG: &str = "confirm.toml";
const FOLDER: &str = "confirm";
const RESULT: &str = "result.json";
const MIXTURE: &str = "mixture.toml";
const OUTPUTS: &str = "outputs";

impl Search<'_> {
    /// Runs the mixtures of the proposal against each other and writes what came out. `None` where
    /// only a part was made.
    ///
    /// # Errors
    /// No proposal yet; whatever keeps a run from being made.
    pub fn confirm(
        &self,
        jobs: Option<usize>,
        share: Option<Share>,
        collect: bool,
    ) -> anyhow::Result<Option<ResultDocument>> {
        let proposal = self.written_proposal()?;
        let result = match arms(&proposal).len() {
            0 | 1 => nothing_to_confirm(&proposal),
            _ => {
                let Some(comparison) = self.compare(&proposal, jobs, share, collect)? else {
                    return Ok(None);
                };
                result_of(&proposal, &comparison)
            }
        };
        write_document(&self.folder.join(RESULT), &result)?;
        self.write_outputs(&proposal, &result)?;
        if let Some(page) = write_search_page(&self.folder, self.session) {
            self.session.say(format!("report    {}", shell_path(&page)));
        }
        Ok(Some(result))
    }

    /// The comparison of the proposal's mixtures, made by compare as `cuvee compare confirm.toml`
    /// makes it.
    fn compare(
        &self,
        proposal: &ProposalDocument,
        jobs: Option<usize>,
        share: Option<Share>,
        collect: bool,
    ) -> anyhow::Result<Option<Comparison>> {
        if collect {
            let missing = self.missing(proposal)?;
            if missing > 0 {
                let what = format!("finished runs of the confirmation, {missing} more");
                return not_yet(self, &what, FOLDER);
            }
        }
        let config = self.folder.join(CONFIG);
        cuvee_fs::write_file_concurrently(&config, self.confirm_config(proposal)?.as_bytes())?;
        let args = CompareArgs {
            what: vec![config.clone()],
            plan: false,
            pilot: None,
            jobs: jobs.or(self.design.spec.jobs),
            shard: share,
            collect,
            baseline: None,
        };
        let common = Common {
            set: Vec::new(),
            out: Some(self.folder.join(FOLDER)),
            seed: None,
            device: Some(self.device.to_string()),
            json: false,
            ..self.session.common.clone()
        };
        let (interrupted, ranks) = (self.session.interrupted.clone(), self.session.ranks.clone());
        let session = Session { common, interrupted, ranks };
        of_config(&args, &config, &session)
    }

    /// Runs of the confirmation that are not there yet.
    fn missing(&self, proposal: &ProposalDocument) -> anyhow::Result<usize> {
        let folder = self.folder.join(FOLDER);
        let again = format!("{}{REPLICA}", ConfirmRole::Uniform.name());
        let arms = arms(proposal).into_iter().map(|mixture| mixture.arm.as_str());
        let mut missing = 0;
        for arm in arms.chain([again.as_str()]) {
            for seed in &self.declared.confirm_seeds {
                let run = folder.join(arm).join(format!("seed-{seed}"));
                match sweep::status(&run, self.declared.target.steps)? {
                    Status::Finished | Status::Stopped(_) => {}
                    Status::Unfinished(_) => missing += 1,
                }
            }
        }
        Ok(missing)
    }

    /// The config of the confirmation: the target run, and the mixtures as arms.
    fn confirm_config(&self, proposal: &ProposalDocument) -> anyhow::Result<String> {
        let domains = &self.declared.domains;
        let mut config: Config = self.design.target.clone();
        let even = &proposal.predictions.mixtures[0];
        config.mixture = mixture_spec(&config.mixture, domains, &even.sampling, &even.objective);
        config.train.threads = Some(self.declared.confirm_threads);
        let arm = |mixture: &&PredictedMixture| -> anyhow::Result<toml::Value> {
            let spec =
                mixture_spec(&config.mixture, domains, &mixture.sampling, &mixture.objective);
            let all = toml::Table::try_from(&spec)?;
            let own = ["objective", "sampling", "loss"];
            let keys = all.into_iter().filter(|(key, _)| own.contains(&key.as_str()));
            let mut set = toml::Table::new();
            set.insert("mixture".to_owned(), toml::Value::Table(keys.collect()));
            let mut arm = toml::Table::new();
            arm.insert("name".to_owned(), mixture.arm.clone().into());
            arm.insert("set".to_owned(), toml::Value::Table(set));
            Ok(toml::Value::Table(arm))
        };
        let arms = arms(proposal).iter().map(arm).collect::<anyhow::Result<Vec<_>>>()?;
        let seeds: Vec<toml::Value> = self
            .declared
            .confirm_seeds
            .iter()
            .map(|seed| Ok(toml::Value::Integer(i64::try_from(*seed)?)))
            .collect::<anyhow::Result<_>>()?;
        let mut compare = toml::Table::new();
        compare.insert("baseline".to_owned(), ConfirmRole::Uniform.name().into());
        compare.insert("seeds".to_owned(), seeds.into());
        compare.insert("arms".to_owned(), arms.into());
        let mut section = toml::Table::new();
        section.insert("compare".to_owned(), compare.into());
        Ok(format!(
            "# Written by `cuvee search`: its proposal against the alternatives. The same by hand:\n#\n#   cuvee compare {CONFIG} --out {FOLDER}\n\n{}\n{}",
            config.to_toml()?,
            toml::to_string(&section)?
        ))
    }

    /// The mixture for Cuvee's config and for other programs.
    fn write_outputs(
        &self,
        proposal: &ProposalDocument,
        result: &ResultDocument,
    ) -> anyhow::Result<()> {
        let Some(mixture) = proposed(proposal) else { return Ok(()) };
        let names: Vec<String> = proposal.domains.clone();
        let mut output =
            Output::new(names, &mixture.sampling, &mixture.objective).map_err(refused)?;
        output.epochs = proposal.proposed.iter().map(|domain| domain.epochs).collect();
        output.tokens_per_example = self
            .corpus
            .domains
            .iter()
            .map(|domain| {
                let shard = domain.shard(Split::Train);
                shard.tokens() as f64 / shard.documents().max(1) as f64
            })
            .collect();
        let own = result.mixtures.iter().find(|m| m.role == ConfirmRole::Proposal);
        output.verified = match own.and_then(|own| own.gain.zip(own.within)) {
            Some((by, within)) if result.verified => Verified::Better { by, within },
            _ => Verified::No,
        };
        let folder = self.folder.join(OUTPUTS);
        std::fs::create_dir_all(&folder)?;
        for (place, format) in FORMATS.iter().enumerate() {
            let path: PathBuf = match place {
                0 => self.folder.join(MIXTURE),
                _ => folder.join(format!("{}.{}", format.name, format.extension)),
            };
            cuvee_fs::write_file_concurrently(&path, (format.render)(&output).as_bytes())?;
        }
        Ok(())
    }

    /// What came out, in words: the result first.
    pub fn summary(&self, result: &ResultDocument) -> String {
        let mut text = result.sentence.clone();
        if result.mixtures.len() > 1 {
            text.push_str(&format!(
                "\n  {:<12} {:>20} {:>12} {:>10}",
                "mixture", "gain over uniform", "predicted", "verdict"
            ));
        }
        for mixture in result.mixtures.iter().filter(|m| m.role != ConfirmRole::Uniform) {
            let gain = match (mixture.gain, mixture.within) {
                (Some(gain), Some(within)) => format!("{gain:+.4} ± {within:.4}"),
                (Some(gain), None) => format!("{gain:+.4}"),
                (None, _) => "–".to_owned(),
            };
            let predicted =
                mixture.predicted_gain.map_or("–".to_owned(), |gain| format!("{gain:+.4}"));
            text.push_str(&format!(
                "\n  {:<12} {gain:>20} {predicted:>12} {:>10}",
                mixture.role.name(),
                mixture.verdict
            ));
        }
        text.push_str(&format!(
            "\nmixture   {}\nothers    {}",
            shell_path(&self.folder.join(MIXTURE)),
            shell_path(&self.folder.join(OUTPUTS))
        ));
        text
    }
}

/// The mixtures that are run, each once.
fn arms(proposal: &ProposalDocument) -> Vec<&PredictedMixture> {
    let own = |mixture: &&PredictedMixture| mixture.arm == mixture.role.name();
    proposal.predictions.mixtures.iter().filter(own).collect()
}

fn proposed(proposal: &ProposalDocument) -> Option<&PredictedMixture> {
    proposal.predictions.mixtures.iter().find(|m| m.role == ConfirmRole::Proposal)
}

/// Uniform is all that there is.
fn nothing_to_confirm(proposal: &ProposalDocument) -> ResultDocument {
    ResultDocument {
        verified: false,
        sentence: "not verified: the proposal is the uniform mixture, and so are all others"
            .to_owned(),
        predictions: proposal.hash.clone(),
        mixtures: Vec::new(),
    }
}

fn result_of(proposal: &ProposalDocument, comparison: &Comparison) -> ResultDocument {
    let told = &proposal.predictions.mixtures;
    let uniform = told.iter().find(|m| m.role == ConfirmRole::Uniform).and_then(|m| m.predicted);
    let arm = |name: &str| comparison.arms.iter().find(|arm| arm.name == name);
    let confirmed = |mixture: &PredictedMixture| {
        let found = arm(&mixture.arm);
        let baseline = mixture.arm == ConfirmRole::Uniform.name();
        ConfirmedMixture {
            role: mixture.role,
            arm: mixture.arm.clone(),
            gain: found.and_then(|arm| arm.difference).filter(|_| !baseline).map(|d| -d),
            within: found.and_then(|arm| arm.difference_ci95).filter(|_| !baseline),
            verdict: match found.filter(|_| !baseline) {
                Some(arm) => arm.verdict.name().to_owned(),
                None => "baseline".to_owned(),
            },
            predicted_gain: uniform.zip(mixture.predicted).map(|(from, to)| from - to),
        }
    };
    let arm_of_proposal = proposed(proposal).and_then(|m| arm(&m.arm));
    let baseline = arm_of_proposal.is_some_and(|arm| arm.name == ConfirmRole::Uniform.name());
    let (verified, sentence) = match arm_of_proposal.filter(|_| !baseline) {
        Some(arm) => sentence(arm, comparison.exploratory),
        None => (false, "not verified: the proposal is the uniform mixture".to_owned()),
    };
    ResultDocument {
        verified,
        sentence,
        predictions: proposal.hash.clone(),
        mixtures: told.iter().map(confirmed).collect(),
    }
}

fn sentence(arm: &ArmResult, exploratory: bool) -> (bool, String) {
    let seeds = counted(arm.n, "fresh seed");
    match (arm.difference, arm.difference_ci95) {
        (Some(difference), Some(within)) => {
            let verified = arm.verdict == Verdict::Better && !exploratory;
            let numbers = format!("{:+.4} ± {within:.4} nats a token over {seeds}", -difference);
            match verified {
                true => {
                    (true, format!("verified: the proposal is better than uniform by {numbers}"))
                }
                false => (
                    false,
                    format!(
                        "not verified: the proposal's gain over uniform is {numbers} ({})",
                        arm.verdict.name()
                    ),
                ),
            }
        }
        _ => (false, format!("not verified: {}", arm.sentence)),
    }
}
