//! What a reader should know besides, and how the numbers came about.

use std::fmt::Write;

use cuvee_compare::{Comparison, Verdict};
use cuvee_words::counted;

use super::html::text;
use super::ranking::words;
use super::sheet::Page;

pub(crate) fn section(page: &mut Page, comparison: Option<&Comparison>, notes: &[String]) {
    let own = comparison.into_iter().flat_map(|comparison| &comparison.notes);
    let mut all: Vec<String> = own.chain(notes).cloned().collect();
    if let Some(comparison) = comparison {
        all.extend(of_comparison(comparison));
    }
    if !all.is_empty() {
        page.section("Notes");
        let mut out = String::from("<ul>\n");
        for note in &all {
            // Writing to a String cannot fail.
            let _ = writeln!(out, "<li>{}</li>", text(note));
        }
        out.push_str("</ul>\n");
        page.push(&out);
    }
    page.section("Method");
    for sentence in comparison.map_or(ALONE, |_| COMPARED) {
        page.push(&format!("<p class=\"footnote\">{}</p>\n", text(sentence)));
    }
}

/// What the comparison's numbers say of itself.
fn of_comparison(comparison: &Comparison) -> Vec<String> {
    let mut out = Vec::new();
    if let Some(noise) = comparison.baseline_noise {
        let verdict = match comparison.aa_verdict {
            Some(Verdict::None) | None => String::new(),
            Some(verdict) => format!("; its verdict: {}", words(verdict).0),
        };
        out.push(format!(
            "Noise floor: {noise:.4} nats, the standard deviation of the baseline's differences to \
             itself with other draws{verdict}."
        ));
    }
    if let Some(ratio) = comparison.signal_to_noise {
        out.push(format!(
            "Signal to noise: {ratio:.2}, the spread of the arms' mean losses over the noise of one \
             seed's difference. The larger it is, the more of the ranking is the arms, not chance."
        ));
    }
    if let Some(rate) = comparison.nats_per_percent_of_tokens {
        out.push(format!(
            "One per cent more tokens is worth {rate:.5} nats to the baseline near its end: what a \
             difference of that size could be bought for."
        ));
    }
    for look in &comparison.looks {
        let decided = match look.decided.as_slice() {
            [] => "no arm".to_owned(),
            decided => decided.join(", "),
        };
        out.push(format!(
            "Look at {}, nominal p {}: {decided} decided.",
            counted(look.seeds, "seed"),
            look.nominal
        ));
    }
    out
}

const COMPARED: &[&str] = &[
    "Runs are paired by seed: a seed fixes the initialisation and the draws in every arm, and a \
     difference is taken seed by seed. Its interval adds what other seeds and what other windows of \
     the same text would change: half-width √(t²s²/n + z²V), s the standard deviation of the \
     differences over n seeds, V their variance over windows. p is of Student's t with n − 1 degrees \
     of freedom, corrected by Holm over the arms.",
    "Better and worse: p below α after the correction. Equivalent: the interval of level 1 − 2α lies \
     within the margin. Identical: every difference is 0. Else undecided; “detectable” is the \
     difference that as many seeds would have found in four of five comparisons.",
];

const ALONE: &[&str] = &[
    "Standard errors are over the windows of the valid split: what other windows of the same text \
     would change of the same model. They say nothing of other seeds, which change more; intervals \
     over seeds are Student's t.",
];
