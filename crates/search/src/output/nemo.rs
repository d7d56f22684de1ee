//! NeMo 2: `paths` of its `PreTrainingDataModule`, weights and prefixes in turn, all strings.

use super::interface::{FormatEntry, Knobs, Output};
use super::text::quoted;

pub(super) const ENTRY: FormatEntry = FormatEntry {
    name: "nemo",
    summary: "paths of NeMo 2's PreTrainingDataModule",
    semantics: "shares of samples, which are all seq_length tokens long: tokens",
    extension: "py",
    render,
};

fn render(output: &Output) -> String {
    let mut text = output.comments(Knobs::Sampling);
    text.push_str("# weights are shares of samples of seq_length tokens\npaths = [\n");
    for (domain, share) in output.drawn() {
        text.push_str(&format!("    {}, {},\n", quoted(&share), quoted(output.path(domain))));
    }
    text.push_str("]\n");
    text
}
