//! The page of a search: what was confirmed, what had been predicted, and what the law is worth.
//!
//! In: the documents that a search writes, and its table of runs. Out: the page. First comes what
//! the confirmation found, and never what was predicted; a stage that has not been made yet is left
//! out.

mod confirmed;
mod form;
mod input;
mod mixtures;
mod sliders;
mod worth;

use std::path::Path;

use cuvee_words::counted;

use super::html::text;
use super::sheet::Page;
use crate::error::Result;
use crate::number::count;

pub use input::{CheapRun, SearchInput, is_search, read_search};

use sliders::Sliders;

/// Writes the page of a search to `path`, whole or not at all.
///
/// # Errors
/// The file cannot be written.
pub fn write_search_report(input: &SearchInput, path: &Path) -> Result<()> {
    cuvee_fs::create_parent(path)?;
    Ok(cuvee_fs::write_file(path, search_report(input).as_bytes())?)
}

/// The page of a search.
pub fn search_report(input: &SearchInput) -> String {
    let mut page = Page::new(&input.title, &lead(input));
    confirmed::section(&mut page, input);
    mixtures::section(&mut page, input);
    by_hand(&mut page, input);
    worth::section(&mut page, input);
    about(&mut page, input);
    for sentence in METHOD {
        page.push(&format!("<p class=\"footnote\">{}</p>\n", text(sentence)));
    }
    page.finish()
}

/// What came out, in a sentence.
fn lead(input: &SearchInput) -> String {
    match (&input.result, &input.pilot, &input.proposal) {
        (Some(result), ..) => capital(&result.sentence),
        (None, _, Some(_)) => {
            "Not verified: a mixture is proposed, and nothing has been confirmed yet.".to_owned()
        }
        (None, Some(pilot), None) if pilot.hopeless => {
            format!("Not verified: the pilot says to stop. {}", pilot.sentence)
        }
        _ => "Not verified: nothing is proposed yet.".to_owned(),
    }
}

/// The sentence with a capital at its beginning.
fn capital(sentence: &str) -> String {
    let mut letters = sentence.chars();
    let first: String = letters.next().into_iter().flat_map(char::to_uppercase).collect();
    first + letters.as_str()
}

/// Sliders over the law, where they say what the law says.
fn by_hand(page: &mut Page, input: &SearchInput) {
    let (Some(fit), Some(proposal)) = (&input.fit, &input.proposal) else { return };
    let laws: Vec<_> = fit.targets.iter().map(|target| target.form.clone()).collect();
    let epochs = input.declared.iter().flat_map(|declared| &declared.domains);
    let sliders = Sliders {
        domains: &proposal.domains,
        targets: fit.targets.iter().map(|target| (target.target.as_str(), target.weight)).collect(),
        laws: &laws,
        mixtures: mixtures::named(proposal),
        epochs_per_share: epochs.map(|domain| domain.epochs_per_share).collect(),
        tried: input.runs.iter().map(|run| run.sampling.as_slice()).collect(),
    };
    if !sliders.can_be_moved() {
        return;
    }
    page.section("Mixtures by hand");
    page.paragraph(&format!(
        "What the law `{}` predicts of a cheap run on another mixture, by its closed form. It was fitted \
         to {}, and far from them it says little: a prediction is no result.",
        fit.law,
        counted(fit.together.n, "run")
    ));
    page.push(&sliders.html());
    page.script(sliders::SCRIPT);
}

/// What was declared, what the pilot said, and what deserves a second thought.
fn about(page: &mut Page, input: &SearchInput) {
    let mut notes: Vec<String> = Vec::new();
    if let Some(declared) = &input.declared {
        notes.push(format!(
            "{} of {} tokens each, models of {} parameters, for a run of {} tokens and {} parameters; \
             chosen on {}, verified on {}.",
            counted(declared.runs, "cheap run"),
            count(declared.proxy.tokens as f64),
            count(declared.proxy.parameters as f64),
            count(declared.target.tokens as f64),
            count(declared.target.parameters as f64),
            declared.chosen_on,
            declared.verified_on
        ));
        notes.push(format!(
            "Asked for: law {}, κ = {}, seed {}.",
            declared.law, declared.kappa, declared.seed
        ));
    }
    if let Some(pilot) = &input.pilot {
        notes.push(format!("Pilot: {}", pilot.sentence));
    }
    if let Some(fit) = &input.fit {
        let without = &fit.left_out;
        if !without.is_empty() {
            let runs = counted(without.len(), "run");
            notes.push(format!("{runs} without a result: {}.", without.join(", ")));
        }
    }
    if let Some(proposal) = &input.proposal {
        notes.extend(proposal.warnings.iter().cloned());
        if let Some(gap) = proposal.gap {
            notes.push(format!(
                "By its own slopes the proposal is within {gap:.5} nats of the law's best mixture."
            ));
        }
    }
    notes.extend(input.notes.iter().cloned());
    if notes.is_empty() {
        return;
    }
    page.section("Notes");
    let items: String = notes.iter().map(|note| format!("<li>{}</li>\n", text(note))).collect();
    page.push(&format!("<ul>\n{items}</ul>\n"));
}

const METHOD: &[&str] = &[
    "A gain is the uniform mixture's loss less a mixture's own. What is confirmed comes from fresh \
     seeds of the final run, paired by seed and tested as in a comparison; what is predicted comes \
     from a law that was fitted to cheap runs, was written down before the confirmation, and is no \
     result. A predicted minimum is optimistic: it is chosen for being low.",
    "Held-out predictions are of runs that the fit has not seen, runs of one mixture together, and \
     everything that is tuned is tuned anew without them.",
];
