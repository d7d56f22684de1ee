//! Levanter: `train_weights` of its data config. The components themselves stay as they are.

use super::interface::{FormatEntry, Knobs, Output};
use super::text::quoted;

pub(super) const ENTRY: FormatEntry = FormatEntry {
    name: "levanter",
    summary: "train_weights of Levanter's data config",
    semantics: "shares of sequences, which are equally long where text is packed: tokens",
    extension: "yaml",
    render,
};

fn render(output: &Output) -> String {
    let mut text = output.comments(Knobs::Sampling);
    text.push_str(
        "# weights are shares of sequences; keys are those of `components`\n\
         data:\n  train_weights:\n",
    );
    for (domain, share) in output.drawn() {
        text.push_str(&format!("    {}: {share}\n", quoted(&output.domains[domain])));
    }
    text
}
