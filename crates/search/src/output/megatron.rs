//! Megatron-LM's blend: `--data-path WEIGHT PREFIX WEIGHT PREFIX …`.

use super::interface::{FormatEntry, Knobs, Output};
use super::text::shell;

pub(super) const ENTRY: FormatEntry = FormatEntry {
    name: "megatron",
    summary: "Megatron-LM's --data-path blend",
    semantics: "shares of samples, which are all --seq-length tokens long: tokens",
    extension: "sh",
    render,
};

fn render(output: &Output) -> String {
    let mut text = output.comments(Knobs::Sampling);
    text.push_str("# weights are shares of samples of --seq-length tokens\n--data-path");
    for (domain, share) in output.drawn() {
        text.push_str(&format!(" \\\n    {share} {}", shell(output.path(domain))));
    }
    text.push('\n');
    text
}
