//! Hugging Face `datasets`: the arguments of `interleave_datasets`, whose probabilities are those
//! of
//! **examples**.

use super::interface::{FormatEntry, Knobs, Output};
use super::text::{decimals, quoted};
use crate::shares::normalised;

pub(super) const ENTRY: FormatEntry = FormatEntry {
    name: "datasets",
    summary: "arguments of datasets.interleave_datasets",
    semantics: "shares of examples: of tokens where examples are packed to one length; otherwise \
                divided by the mean tokens of an example",
    extension: "py",
    render,
};

fn render(output: &Output) -> String {
    let mut text = output.comments(Knobs::Sampling);
    let drawn = output.drawn();
    let lengths: Option<Vec<f64>> = drawn
        .iter()
        .map(|(domain, _)| output.tokens_per_example.get(*domain).copied().filter(|n| *n > 0.0))
        .collect();
    let tokens = drawn.iter().map(|(domain, _)| output.sampling[*domain]);
    let examples = lengths.as_ref().and_then(|lengths| {
        let raw: Vec<f64> = tokens.zip(lengths).map(|(share, length)| share / length).collect();
        normalised(&raw)
    });
    text.push_str(match examples {
        Some(_) => "# probabilities are shares of examples, from token shares and mean lengths\n",
        None => {
            "# probabilities are shares of examples: pack examples to one length, or divide by\n\
             # their mean tokens, for these to be shares of tokens\n"
        }
    });
    let probabilities: Vec<String> = match examples {
        Some(shares) => decimals(&shares),
        None => drawn.iter().map(|(_, share)| share.clone()).collect(),
    };
    text.push_str("dataset = interleave_datasets(\n    [\n");
    for (domain, _) in &drawn {
        text.push_str(&format!("        domains[{}],\n", quoted(&output.domains[*domain])));
    }
    text.push_str("    ],\n    probabilities=[");
    text.push_str(&probabilities.join(", "));
    text.push_str("],\n    seed=0,\n    stopping_strategy=\"all_exhausted\",\n)\n");
    text
}
