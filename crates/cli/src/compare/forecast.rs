//! What a comparison will show, how long it takes and how much disk it needs, before anything runs.

use std::path::Path;

use cuvee_compare::{Comparison, Resolution, Role, power_table, resolution};
use cuvee_data::Corpus;
use cuvee_train::DeviceSpec;
use cuvee_words::{counted, shell_path};
use serde_json::json;

use super::design::Design;
use super::verdict;
use crate::plan::Remark;
use crate::session::Session;
use crate::sweep::{ArmPlan, Cost, Sharing, StepTime, StepTimes, engine_name};

/// What is forecast.
pub struct Forecast<'a> {
    /// What is compared.
    design: &'a Design,
    /// What is known of its arms.
    plans: &'a [ArmPlan],
    /// How the runs share the machine.
    sharing: Sharing,
    /// The folder of the comparison.
    folder: &'a Path,
    /// How long a step of each arm takes, where that is to be said.
    times: Option<StepTimes>,
    /// What the runs without a result cost.
    pub cost: Cost,
}

impl<'a> Forecast<'a> {
    /// Of the runs in `folder` that have no result yet.
    pub fn new(
        design: &'a Design,
        plans: &'a [ArmPlan],
        sharing: Sharing,
        folder: &'a Path,
        corpus: &Corpus,
        device: DeviceSpec,
    ) -> Self {
        let sweep = design.sweep(plans, folder, corpus, device);
        let cost = Cost::new(&sweep, &design.runs(), None);
        Self { design, plans, sharing, folder, times: None, cost }
    }

    /// With the time that the runs take: times steps of the kinds of arms that the baseline's do
    /// not tell of.
    ///
    /// # Errors
    /// A step that cannot be made.
    pub fn timed(self, corpus: &Corpus, device: DeviceSpec) -> anyhow::Result<Self> {
        let sweep = self.design.sweep(self.plans, self.folder, corpus, device);
        let times = StepTimes::measure(&sweep, self.design.baseline, self.sharing)?;
        let cost = Cost::new(&sweep, &self.design.runs(), times.as_ref());
        Ok(Self { times, cost, ..self })
    }

    /// What is going to be done, in words.
    pub fn announce(&self) -> String {
        let (design, plan) = (self.design, &self.plans[self.design.baseline]);
        let train = &design.arms[design.baseline].config.train;
        let mut text = format!(
            "Comparison: {} × {} = {} of {} tokens each, {} parameters, {} engine in {}, {} at once with {} each → {}",
            counted(design.arms.len(), "arm"),
            counted(design.seeds.len(), "seed"),
            counted(design.arms.len() * design.seeds.len(), "run"),
            cuvee_report::count(plan.tokens as f64),
            cuvee_report::count(plan.model.parameters() as f64),
            engine_name(train.engine),
            train.precision,
            self.sharing.jobs,
            counted(self.sharing.threads, "thread"),
            shell_path(self.folder),
        );
        let tested = design.tested();
        if let Some(row) = resolution(design.seeds.len(), tested, design.spec.alpha) {
            text.push_str(&format!(
                "\n{} find a difference of {:.2} s in four of five comparisons, {:.2} s corrected for {}; s is the standard deviation of an arm's difference over seeds",
                counted(design.seeds.len(), "seed"),
                row.detectable,
                row.detectable_corrected,
                counted(tested, "arm")
            ));
        }
        for (index, arm) in design.arms.iter().enumerate() {
            let role = design.role(index);
            let set = match (role, arm.set.is_empty()) {
                (Role::Replica, _) => {
                    "the baseline again with other draws: the noise floor".to_owned()
                }
                (_, true) => "the config as it is".to_owned(),
                (_, false) => arm.set.join(", "),
            };
            text.push_str(&format!("\n  {:<16} {set}", arm.name));
        }
        self.remarks().iter().for_each(|line| text.push_str(&format!("\n{line}")));
        text
    }

    /// How long a step of each arm takes, in a line, where they differ.
    fn step_times(&self) -> String {
        let Some(times) = &self.times else { return String::new() };
        let mut found: Vec<(StepTime, Vec<&str>)> = Vec::new();
        for (arm, time) in self.design.arms.iter().zip(&times.arms) {
            match found.iter_mut().find(|(other, _)| other == time) {
                Some((_, names)) => names.push(arm.name.as_str()),
                None => found.push((*time, vec![arm.name.as_str()])),
            }
        }
        if found.len() == 1 {
            return String::new();
        }
        let each = found.iter().map(|(time, names)| {
            let how = if time.timed { "" } else { " by its FLOPs" };
            format!("{:.2} ms{how} in {}", 1e3 * time.seconds, names.join(", "))
        });
        format!("a step takes {}\n", each.collect::<Vec<_>>().join("; "))
    }

    /// What deserves a second thought before the runs are made; the baseline's repetition has no
    /// more to say than the baseline.
    fn remarks(&self) -> Vec<String> {
        let own = self.design.arms.iter().zip(self.plans).enumerate();
        let own = own.filter(|(arm, _)| self.design.role(*arm) != Role::Replica);
        let arms = own.map(|(_, (arm, plan))| (arm.name.as_str(), plan.remarks.as_slice()));
        worth_saying(&arms.collect::<Vec<_>>())
    }

    /// Prints the forecast; `pilot` is the folder of an earlier comparison.
    ///
    /// # Errors
    /// A pilot that cannot be read.
    pub fn print(&self, pilot: Option<&Path>, session: &Session) -> anyhow::Result<()> {
        let pilot = pilot.map(verdict::read).transpose()?;
        let (spec, seeds) = (&self.design.spec, self.design.seeds.len());
        let plan = &self.plans[self.design.baseline];
        let mut counts: Vec<usize> = vec![3, 4, 5, 6, 8, 10, 12];
        counts.push(seeds);
        counts.sort_unstable();
        counts.dedup();
        let table = power_table(counts, self.design.tested(), spec.alpha);
        session.say(self.words(&table, pilot.as_ref()));
        let row = |r: &Resolution| {
            json!({
                "seeds": r.seeds, "detectable": r.detectable,
                "detectable_corrected": r.detectable_corrected, "equivalent": r.equivalent,
            })
        };
        session.emit(&json!({
            "folder": self.folder,
            "arms": self.design.arms.iter().map(|arm| &arm.name).collect::<Vec<_>>(),
            "seeds": self.design.seeds,
            "runs": self.cost.runs,
            "steps": plan.steps,
            "tokens": plan.tokens,
            "parameters": plan.model.parameters(),
            "jobs": self.sharing.jobs,
            "threads": self.sharing.threads,
            "seconds": self.cost.seconds,
            "seconds_per_step": self.times.as_ref().map(|times| {
                times.arms.iter().map(|time| time.seconds).collect::<Vec<_>>()
            }),
            "bytes": self.cost.bytes,
            "resolution_in_standard_deviations": table.iter().map(row).collect::<Vec<_>>(),
            "pilot": pilot.map(|pilot| scatter(&pilot).into_iter().map(|(name, s)| {
                json!({ "arm": name, "sd_seeds": s })
            }).collect::<Vec<_>>()),
        }))
    }

    fn words(&self, table: &[Resolution], pilot: Option<&Comparison>) -> String {
        let (spec, seeds) = (&self.design.spec, self.design.seeds.len());
        let (plan, cost) = (&self.plans[self.design.baseline], &self.cost);
        let mut text = format!(
            "Plan: {} left to make ({} × {}), {} of {} tokens each, {} parameters\n{} at once with {} each{}; {} on the disk\n",
            counted(cost.runs, "run"),
            counted(self.design.arms.len(), "arm"),
            counted(seeds, "seed"),
            counted(plan.steps, "step"),
            cuvee_report::count(plan.tokens as f64),
            cuvee_report::count(plan.model.parameters() as f64),
            self.sharing.jobs,
            counted(self.sharing.threads, "thread"),
            cost.seconds.map_or_else(String::new, |s| format!(
                ", about {} in all",
                cuvee_report::duration(s)
            )),
            cuvee_report::bytes(cost.bytes),
        );
        text.push_str(&self.step_times());
        self.remarks().iter().for_each(|line| text.push_str(&format!("{line}\n")));
        text.push_str(&format!(
            "\nWhat a number of seeds resolves, in units of s, the standard deviation over seeds of an\narm's difference to `{}` (α = {}, four of five comparisons):\n\n  seeds   detectable, 1 arm   the same, {} corrected   margin that shows equivalence\n",
            self.design.arms[self.design.baseline].name,
            spec.alpha,
            counted(self.design.tested(), "arm"),
        ));
        for row in table {
            let mark = if row.seeds == seeds { "  ← this comparison" } else { "" };
            text.push_str(&format!(
                "  {:>5}   {:>17.2}   {:>23.2}   {:>28.2}{mark}\n",
                row.seeds, row.detectable, row.detectable_corrected, row.equivalent
            ));
        }
        let known = pilot.map(scatter).unwrap_or_default();
        if known.is_empty() {
            text.push_str(&format!(
                "\ns is not known before anything has run; it differs tenfold between arms (from about 0.01\nnats for arms that draw the baseline's text to 0.1 for skewed sampling weights). The margin is\n{} nats.\nhint: make a short comparison first and name its folder: --plan --pilot DIR",
                spec.margin
            ));
            return text;
        }
        let now = table.iter().find(|row| row.seeds == seeds);
        text.push_str(&format!(
            "\nBy the scatter of the pilot, {} will resolve:\n",
            counted(seeds, "seed")
        ));
        for (name, s) in known {
            let resolved = now.map(|row| row.in_nats(s));
            let line = resolved.map_or_else(String::new, |row| {
                format!(
                    "  {name:<16} s {s:.4}: differences from {:.4} nats on, {:.4} corrected; equivalence within {:.4}\n",
                    row.detectable, row.detectable_corrected, row.equivalent
                )
            });
            text.push_str(&line);
        }
        text.push_str(&format!("The margin is {} nats.", spec.margin));
        text
    }
}

/// Of what the plans of `arms` remark on, each remark once with the arms that it is of: warnings,
/// and those notes that are not of all arms, which tell the arms apart.
fn worth_saying(arms: &[(&str, &[Remark])]) -> Vec<String> {
    let mut found: Vec<(&Remark, Vec<&str>)> = Vec::new();
    for &(name, remarks) in arms {
        for remark in remarks {
            match found.iter_mut().find(|(other, _)| *other == remark) {
                Some((_, names)) => names.push(name),
                None => found.push((remark, vec![name])),
            }
        }
    }
    let said = |(remark, names): (&Remark, Vec<&str>)| {
        let of_all = names.len() == arms.len();
        let worth = match remark {
            Remark::Fact(_) => false,
            Remark::Note(_) => !of_all,
            Remark::Warning(_) => true,
        };
        let of = if of_all { "all arms".to_owned() } else { names.join(", ") };
        worth.then(|| format!("  {of}: {}", remark.to_string().replace('\n', "\n    ")))
    };
    found.into_iter().filter_map(said).collect()
}

/// s of every arm that has one.
fn scatter(comparison: &Comparison) -> Vec<(String, f64)> {
    let arms = comparison.arms.iter();
    arms.filter_map(|arm| Some((arm.name.clone(), arm.sd_seeds?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remark_is_said_once_with_its_arms_and_a_note_of_all_of_them_is_not() {
        let fact = |text: &str| Remark::Fact(text.to_owned());
        let note = |text: &str| Remark::Note(text.to_owned());
        let warning = |text: &str| Remark::Warning(text.to_owned());
        let base = [note("of all"), warning("also of all"), fact("a"), warning("of two")];
        let other = [note("of all"), warning("also of all"), fact("b"), note("of one\nhint: x")];
        let third = [note("of all"), warning("of two"), warning("also of all")];
        let arms: [(&str, &[Remark]); 3] = [("base", &base), ("other", &other), ("third", &third)];
        let expected = [
            "  all arms: warning: also of all",
            "  base, third: warning: of two",
            "  other: note: of one\n    hint: x",
        ];
        assert_eq!(worth_saying(&arms), expected);
        // What is not of all arms tells them apart, so that one arm alone has no note to say.
        assert_eq!(worth_saying(&arms[..1]).len(), 2);
    }
}
