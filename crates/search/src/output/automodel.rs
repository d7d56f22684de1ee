//! NeMo Automodel: `paths` of its Megatron dataset, and its `domain_mixture`, which weighs the loss
//! of a domain by objective over sampling, as Cuvee does.

use super::interface::{FormatEntry, Knobs, Output};
use super::text::{decimals, quoted};

pub(super) const ENTRY: FormatEntry = FormatEntry {
    name: "automodel",
    summary: "NeMo Automodel's Megatron dataset, with domain_mixture where the objective differs",
    semantics: "shares of samples, which are all seq_length tokens long: tokens",
    extension: "yaml",
    render,
};

fn render(output: &Output) -> String {
    let mut text = output.comments(Knobs::Both);
    text.push_str("# weights are shares of samples of seq_length tokens\n");
    let drawn = output.drawn();
    if output.has_two_knobs() {
        text.push_str("domain_mixture:\n  domains:\n");
        let objective = decimals(&output.objective);
        for (domain, share) in &drawn {
            text.push_str(&format!(
                "    - name: {}\n      path: {}\n      sampling_weight: {share}\n      \
                 objective_weight: {}\n",
                quoted(&output.domains[*domain]),
                quoted(output.path(*domain)),
                objective[*domain],
            ));
        }
    }
    text.push_str(
        "dataset:\n  _target_: \
         nemo_automodel.components.datasets.llm.megatron_dataset.MegatronPretraining\n  paths:\n",
    );
    for (domain, share) in &drawn {
        let path = quoted(output.path(*domain));
        text.push_str(&format!("    - {}\n    - {path}\n", quoted(share)));
    }
    text
}
