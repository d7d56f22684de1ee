//! `cuvee search`: many cheap runs, a law fitted to them, a mixture proposed by it, and that
//! mixture run against the alternatives. The runs are made by `sweep`, the confirmation by
//! `compare`.
//!
//! | file | what it does |
//! | --- | --- |
//! | `design` | the target run, the cheap runs, what each domain may have |
//! | `registration` | `search.json`, written before the first run |
//! | `declared` | a search that is declared |
//! | `mixtures` | which mixtures are run cheaply, and their arms |
//! | `cheap` | pilot and swarm: their runs, and what the finished ones say |
//! | `rounds` | runs that fits of the runs before ask for |
//! | `fit` | the law, and what it is worth |
//! | `rules` | proposals that need no law |
//! | `propose` | `proposal.json`, written before the confirmation |
//! | `confirm` | the comparison, its result, and the mixture for other programs |
//! | `plan` | what a search costs |
//! | `tables` | fits of swarms in files, and other programs' layouts |

mod cheap;
mod confirm;
mod declared;
mod design;
mod fit;
mod mixtures;
mod plan;
mod propose;
mod registration;
mod rounds;
mod rules;
mod tables;

use std::path::{Path, PathBuf};

use cuvee_data::Share;
use cuvee_search::design::judge_pilot;
use cuvee_search::document::{FitDocument, PilotDocument, ProposalDocument, ResultDocument};
use cuvee_words::{counted, shell_path};
use serde::Serialize;
use serde_json::json;

use crate::config::ConfigError;
use crate::session::{Flag, Flags, Session};
use cheap::Batch;
use declared::{Opening, Search, not_yet};
use design::{Method, refused};
use registration::write_document;
use tables::{ExportArgs, FitFiles, ImportArgs, RegroupArgs};

/// The pilot's judgement in the folder of a search.
const PILOT: &str = "pilot.json";

/// More runs than so many times those that were planned are advised to nobody.
const MOST_ADVISED: usize = 10;

/// What `search` is asked to do.
#[derive(clap::Args, Debug, Clone)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct SearchArgs {
    /// One stage alone; without one all of them, each from where it was broken off
    #[command(subcommand)]
    pub stage: Option<Stage>,
    /// A config with a section `search`
    #[arg(required = true)]
    pub config: Option<PathBuf>,
    /// Say how many runs it takes, how long and how much disk; run nothing
    #[arg(long, conflicts_with_all = ["collect", "shard"])]
    pub plan: bool,
    /// How the runs are made
    #[command(flatten)]
    pub how: How,
}

/// How runs are made.
#[derive(clap::Args, Debug, Clone, Default)]
pub struct How {
    /// Runs at once (default: as many as there are cores for)
    #[arg(long, value_name = "N")]
    pub jobs: Option<usize>,
    /// Make part I of N of the stage's runs only (from 1), as one of N workers that share the
    /// folder
    #[arg(long, value_name = "I/N", conflicts_with = "collect")]
    pub shard: Option<Share>,
    /// Make no run; go on with those that are there
    #[arg(long)]
    pub collect: bool,
}

/// A stage.
#[derive(clap::Subcommand, Debug, Clone)]
pub enum Stage {
    /// Six runs that tell whether the search is worth its cost
    Pilot(StageArgs),
    /// The other cheap runs, and the table of them all: swarm.csv
    Swarm(StageArgs),
    /// Fit the law and judge it by runs that it has not seen: fit.json; of a config's swarm, or of
    /// two tables of another program's (--mixtures, --metrics, --target)
    Fit(FitArgs),
    /// The mixture and what is predicted of it, before it is run: proposal.json
    Propose(ConfigArgs),
    /// Run the proposal against the alternatives with fresh seeds: result.json
    Confirm(StageArgs),
    /// Turn two tables in olmix's layout into a table of a swarm
    Import(ImportArgs),
    /// Write a swarm as two tables in olmix's layout
    Export(ExportArgs),
    /// Write the table of a swarm over merged or split domains
    Regroup(RegroupArgs),
}

/// A stage that makes runs.
#[derive(clap::Args, Debug, Clone)]
pub struct StageArgs {
    /// A config with a section `search`
    pub config: PathBuf,
    /// How the runs are made
    #[command(flatten)]
    pub how: How,
}

/// A stage that makes none.
#[derive(clap::Args, Debug, Clone)]
pub struct ConfigArgs {
    /// A config with a section `search`
    pub config: PathBuf,
}

/// What `search fit` is asked to do.
#[derive(clap::Args, Debug, Clone)]
pub struct FitArgs {
    /// A config with a section `search`, whose swarm has been made
    #[arg(required_unless_present = "mixtures", conflicts_with = "mixtures")]
    pub config: Option<PathBuf>,
    /// Tables in place of a config
    #[command(flatten)]
    pub files: FitFiles,
}

impl SearchArgs {
    /// Which of the flags that stand behind every command mean something to the stage.
    pub fn flags(&self) -> Flags {
        use Flag::{Device, Out, Seed, Set};
        match &self.stage {
            None => Flags::of("search", &[Set, Out, Seed, Device]),
            Some(Stage::Fit(fit)) if fit.config.is_none() => Flags::of("search fit", &[Seed]),
            Some(Stage::Import(_)) => Flags {
                out: "name the table behind the command: cuvee search import --mixtures … --metrics … SWARM.csv",
                ..Flags::of("search import", &[])
            },
            Some(Stage::Export(_)) => Flags {
                out: "name the two tables: --mixtures ratios.csv --metrics metrics.csv",
                ..Flags::of("search export", &[])
            },
            Some(Stage::Regroup(_)) => Flags {
                out: "name the table behind the command: cuvee search regroup SWARM.csv NEW.csv",
                ..Flags::of("search regroup", &[])
            },
            Some(_) => Flags::of("search", &[Set, Out, Seed, Device]),
        }
    }
}

/// Searches.
pub fn run(args: &SearchArgs, session: &Session) -> anyhow::Result<()> {
    match &args.stage {
        None => {
            let Some(config) = &args.config else {
                return Err(ConfigError(
                    "expected a config, found none\nhint: cuvee search CONFIG.toml".to_owned(),
                )
                .into());
            };
            if args.how.shard.is_some() {
                return Err(ConfigError(
                    "cuvee search --shard: expected a stage, whose runs do not wait for others, found none\nhint: cuvee search pilot CONFIG --shard 1/2, then swarm and confirm likewise".to_owned(),
                )
                .into());
            }
            if args.plan {
                let search = open(config, &args.how, session, true)?;
                return plan::print(&search, args.how.jobs);
            }
            all(&open(config, &args.how, session, false)?, &args.how)
        }
        Some(Stage::Pilot(stage)) => {
            let search = open(&stage.config, &stage.how, session, false)?;
            of_law(&search)?;
            match pilot(&search, &stage.how)? {
                Some(found) => session.emit(&serde_json::to_value(found)?),
                None => part_done(&search, &stage.how, Batch::Pilot.name()),
            }
        }
        Some(Stage::Swarm(stage)) => {
            let search = open(&stage.config, &stage.how, session, false)?;
            of_law(&search)?;
            let found = judged_pilot(&search)?;
            if !goes_on(&search, &found) {
                session.say(&found.sentence);
                return stopped(&search, &found);
            }
            match swarm(&search, &stage.how, &found)? {
                true => {
                    session.emit(&json!({ "folder": search.folder, "swarm": search.swarm_path() }))
                }
                false => part_done(&search, &stage.how, Batch::Swarm.name()),
            }
        }
        Some(Stage::Fit(fit)) => match &fit.config {
            Some(config) => {
                let found = open(config, &How::default(), session, false)?.fit()?;
                session.emit(&serde_json::to_value(found)?)
            }
            None => tables::fit(&fit.files, session),
        },
        Some(Stage::Propose(stage)) => {
            let found = open(&stage.config, &How::default(), session, false)?.propose()?;
            session.emit(&serde_json::to_value(found)?)
        }
        Some(Stage::Confirm(stage)) => {
            let search = open(&stage.config, &stage.how, session, false)?;
            let how = &stage.how;
            match search.confirm(how.jobs, how.shard, how.collect)? {
                Some(found) => {
                    session.say(search.summary(&found));
                    session.emit(&serde_json::to_value(found)?)
                }
                None => part_done(&search, how, "confirm"),
            }
        }
        Some(Stage::Import(args)) => tables::import(args, session),
        Some(Stage::Export(args)) => tables::export(args, session),
        Some(Stage::Regroup(args)) => tables::regroup(args, session),
    }
}

fn open<'a>(
    config: &Path,
    how: &How,
    session: &'a Session,
    dry: bool,
) -> anyhow::Result<Search<'a>> {
    let workers = how.shard.map_or(1, |share| share.count() as usize);
    let opening = Opening { jobs: how.jobs, workers, dry, collect: how.collect };
    let search = Search::open(config, session, opening)?;
    session.say(search.hints()?);
    Ok(search)
}

/// What a whole search leaves.
#[derive(Serialize)]
struct Whole<'a> {
    folder: &'a Path,
    /// Whether the pilot ended it.
    stopped: bool,
    pilot: Option<PilotDocument>,
    fit: Option<FitDocument>,
    proposal: Option<ProposalDocument>,
    result: Option<ResultDocument>,
}

/// Every stage, each from where it was broken off.
fn all(search: &Search, how: &How) -> anyhow::Result<()> {
    let mut whole = Whole {
        folder: &search.folder,
        stopped: false,
        pilot: None,
        fit: None,
        proposal: None,
        result: None,
    };
    if let Method::Law(_) | Method::Auto = search.design.method {
        let Some(found) = pilot(search, how)? else { return Ok(()) };
        if !goes_on(search, &found) {
            return stopped(search, &found);
        }
        swarm(search, how, &found)?;
        whole.pilot = Some(found);
        whole.fit = Some(search.fit()?);
    }
    whole.proposal = Some(search.propose()?);
    whole.result = search.confirm(how.jobs, None, how.collect)?;
    if let Some(result) = &whole.result {
        search.session.say(search.summary(result));
    }
    search.session.emit(&serde_json::to_value(whole)?)
}

/// Refuses the stages of a law where a rule proposes.
fn of_law(search: &Search) -> anyhow::Result<()> {
    let Method::Rule(rule) = search.design.method else { return Ok(()) };
    Err(ConfigError(format!(
        "search.law: expected a law, which needs a swarm, found the rule `{}`, which makes its own runs\nhint: cuvee search propose {}",
        rule.name(),
        search.as_typed()
    ))
    .into())
}

/// Makes the pilot's runs and judges them; `None` where only a part was made.
fn pilot(search: &Search, how: &How) -> anyhow::Result<Option<PilotDocument>> {
    if !how.collect {
        search.make(Batch::Pilot, how.shard)?;
    }
    if how.shard.is_some() {
        return Ok(None);
    }
    let found = judged_pilot(search)?;
    let path = search.folder.join(PILOT);
    write_document(&path, &found)?;
    search.session.say(format!("{}\npilot     {}", found.sentence, shell_path(&path)));
    Ok(Some(found))
}

/// What the pilot's runs say.
fn judged_pilot(search: &Search) -> anyhow::Result<PilotDocument> {
    let made = search.read_all(&[Batch::Pilot], "finished runs of the pilot", Batch::Pilot)?;
    let (weights, runs) = (search.weights(), search.declared.runs);
    let aim = search.aim();
    let found = match search.declared.freeze.is_empty() {
        true => judge_pilot(&made.swarm, &weights, &aim.caps, runs),
        false => {
            let groups: Vec<Vec<&str>> = search
                .declared
                .freeze
                .iter()
                .map(|group| group.iter().map(String::as_str).collect())
                .collect();
            let frozen = made.swarm.frozen(&groups).map_err(refused)?;
            judge_pilot(&frozen.swarm, &weights, &frozen.groups.caps(&aim.caps), runs)
        }
    };
    match (found, made.left_out.as_slice()) {
        (Ok(found), _) => Ok(PilotDocument::new(&found, runs)),
        (Err(error), []) => Err(refused(error).into()),
        // The runs that are missing explain what is refused.
        (Err(error), [first, ..]) => Err(ConfigError(format!(
            "{}\n{} of the pilot have no result; {first}\nhint: a lower learning rate (search.proxy.train.lr), and another --out",
            cuvee_words::without_hints(&error.to_string()),
            counted(made.left_out.len(), "run"),
        ))
        .into()),
    }
}

/// Whether the search goes on after its pilot.
fn goes_on(search: &Search, found: &PilotDocument) -> bool {
    !found.hopeless || search.design.spec.anyway
}

/// Says that the pilot ended the search.
fn stopped(search: &Search, found: &PilotDocument) -> anyhow::Result<()> {
    let more = match found.runs_needed <= MOST_ADVISED * found.runs {
        true => format!("{} runs, or longer proxies", found.runs_needed),
        false => "longer proxies, whose losses differ more".to_owned(),
    };
    search.session.say(format!(
        "Nothing more was run. Train on the uniform mixture or the prior, or give the search more: {more}.\nhint: --set search.anyway=true goes on all the same"
    ));
    search.session.emit(&serde_json::to_value(Whole {
        folder: &search.folder,
        stopped: true,
        pilot: Some(found.clone()),
        fit: None,
        proposal: None,
        result: None,
    })?)
}

/// Makes the swarm's runs and writes their table; false where only a part was made.
fn swarm(search: &Search, how: &How, pilot: &PilotDocument) -> anyhow::Result<bool> {
    let in_rounds = search.declared.batch > 0;
    if in_rounds && how.shard.is_some() {
        return Err(ConfigError(
            "cuvee search --shard: expected runs that do not wait for others, found search.batch\nhint: make the swarm on one machine with --jobs, or leave search.batch out".to_owned(),
        )
        .into());
    }
    if !how.collect {
        search.make(Batch::Swarm, how.shard)?;
        if in_rounds {
            search.make_rounds(pilot.sigma)?;
        }
    } else if in_rounds && !search.rounds_ended()? {
        return not_yet(search, "rounds that have ended", Batch::Swarm.name());
    }
    if how.shard.is_some() {
        return Ok(false);
    }
    search.write_swarm()?;
    Ok(true)
}

/// Says that a worker's part is made.
fn part_done(search: &Search, how: &How, stage: &str) -> anyhow::Result<()> {
    let Some(share) = how.shard else { return Ok(()) };
    search.session.say(format!(
        "Part {share} is done; when all {} are: cuvee search {stage} {} --collect",
        share.count(),
        search.as_typed()
    ));
    search.session.emit(&json!({ "folder": search.folder, "shard": share.to_string() }))
}
