//! OLMo-core: the sources of a `SourceMixtureList`, whose ratios must sum to 1.

use super::interface::{FormatEntry, Knobs, Output};
use super::text::quoted;

pub(super) const ENTRY: FormatEntry = FormatEntry {
    name: "olmo-core",
    summary: "sources of OLMo-core's SourceMixtureList",
    semantics: "shares of requested_tokens: tokens",
    extension: "yaml",
    render,
};

/// More repetition than the run needs: what rounding to whole instances may ask for.
const MARGIN: f64 = 1.01;

fn render(output: &Output) -> String {
    let mut text = output.comments(Knobs::Sampling);
    text.push_str("# ratios are shares of requested_tokens\nsources:\n");
    for (domain, share) in output.drawn() {
        text.push_str(&format!(
            "  - source_name: {}\n    target_ratio: {share}\n    paths: [{}]\n",
            quoted(&output.domains[domain]),
            quoted(output.path(domain)),
        ));
        // A source that is asked for more than it has is refused unless this says so.
        if let Some(epochs) = output.epochs.get(domain).filter(|epochs| **epochs * MARGIN > 1.0) {
            text.push_str(&format!("    max_repetition_ratio: {:.4}\n", epochs * MARGIN));
        }
    }
    text
}
