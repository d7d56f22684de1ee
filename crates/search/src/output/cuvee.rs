//! A fragment of Cuvee's own config: its section `[mixture]`.

use super::interface::{FormatEntry, Knobs, Output};
use super::text::{decimals, toml_key};

pub(super) const ENTRY: FormatEntry = FormatEntry {
    name: "cuvee",
    summary: "the section [mixture] of a Cuvee config",
    semantics: "shares of the sequences of a batch, which are equally long: tokens",
    extension: "toml",
    render,
};

fn render(output: &Output) -> String {
    let mut text = output.comments(Knobs::Both);
    text.push_str("\n[mixture]\n");
    if output.has_two_knobs() {
        text.push_str("objective = \"reweighted\"\n");
    }
    text.push_str(&section("sampling", &output.domains, &output.sampling));
    if output.has_two_knobs() {
        text.push_str(&section("loss", &output.domains, &output.objective));
    }
    text
}

fn section(slot: &str, domains: &[String], shares: &[f64]) -> String {
    let mut text = format!("\n[mixture.{slot}]\nstrategy = \"fixed\"\n\n[mixture.{slot}.shares]\n");
    for (name, share) in domains.iter().zip(decimals(shares)) {
        text.push_str(&format!("{} = {share}\n", toml_key(name)));
    }
    text
}
