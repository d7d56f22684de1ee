//! Runs in rounds: each asked for by a law that is fitted to the runs before, by Thompson's draws
//! from a bootstrap ensemble. They end with the planned number of runs, or where the next ones are
//! expected to improve less than a quarter of the noise.

use cuvee_search::document::{DeclaredRun, Round, RoundsDocument, RoundsEnd};
use cuvee_search::propose::next_batch;

use super::cheap::{Batch, ROUNDS};
use super::declared::Search;
use super::design::{Method, refused};
use super::registration::{read_document, write_document};

impl Search<'_> {
    /// Whether no round follows those that there are.
    ///
    /// # Errors
    /// Rounds that cannot be read.
    pub fn rounds_ended(&self) -> anyhow::Result<bool> {
        let document: Option<RoundsDocument> = read_document(&self.folder.join(ROUNDS))?;
        Ok(document.is_some_and(|document| document.ended.is_some()))
    }

    /// Makes the rounds that are left; `sigma` is the noise over seeds.
    ///
    /// # Errors
    /// A law that cannot be fitted; [`crate::session::Interrupted`], or what the first run that
    /// failed says.
    pub fn make_rounds(&self, sigma: f64) -> anyhow::Result<()> {
        let Method::Law(law) = self.design.method else { return Ok(()) };
        let path = self.folder.join(ROUNDS);
        let mut document: RoundsDocument = read_document(&path)?.unwrap_or_default();
        let domains = self.declared.domains.len();
        let first = self.design.designed(domains, self.declared.runs);
        let blocks = 1 + self.declared.swarm.iter().map(|run| run.block).max().unwrap_or(0);
        loop {
            if !document.rounds.is_empty() {
                self.make(Batch::Rounds, None)?;
            }
            if document.ended.is_some() {
                return Ok(());
            }
            let made: usize = document.rounds.iter().map(|round| round.runs.len()).sum();
            let count = self.declared.batch.min(self.declared.runs.saturating_sub(first + made));
            if count == 0 {
                document.ended = Some(RoundsEnd::Runs);
                return write_document(&path, &document);
            }
            let swarm = self.read(&Batch::ALL)?.swarm;
            let number = document.rounds.len() as u64 + 1;
            let seed = self.declared.seed.wrapping_add(number);
            let next = next_batch(&swarm, law, &self.aim(), count, seed).map_err(refused)?;
            let expected_improvement = next.expected_improvement;
            if next.is_enough(sigma) {
                document.ended = Some(RoundsEnd::Enough { expected_improvement, sigma });
                self.session.say(format!(
                    "rounds end: the next runs are expected to improve {expected_improvement:.4} nats, less than a quarter of the noise, {sigma:.4}"
                ));
                return write_document(&path, &document);
            }
            let run = |(place, mixture): (usize, &Vec<f64>)| {
                let block = (made + place) % blocks;
                DeclaredRun {
                    mixture: format!("round-{number}-{}", place + 1),
                    kind: "proposed".to_owned(),
                    block,
                    seed: self.declared.seed.wrapping_add(block as u64),
                    sampling: mixture.clone(),
                    objective: mixture.clone(),
                }
            };
            let runs = next.mixtures.iter().enumerate().map(run).collect();
            document.rounds.push(Round { expected_improvement, runs });
            write_document(&path, &document)?;
        }
    }
}
