//! Texts that the models wrote, side by side.

use std::borrow::Cow;
use std::fmt::Write;

use super::html::{lines, text};
use super::runs::Runs;
use super::sheet::Page;

/// Prompts of a page.
const PROMPTS: usize = 12;
/// Arms beside each other.
const ARMS: usize = 24;
/// Characters of a prompt or a text.
const CHARACTERS: usize = 1_500;

pub(crate) fn section(page: &mut Page, runs: &Runs) {
    let mut prompts: Vec<&str> = Vec::new();
    for arm in &runs.arms {
        for generation in arm.runs.iter().flat_map(|run| &run.run.generations) {
            if !prompts.contains(&generation.prompt.as_str()) {
                prompts.push(&generation.prompt);
            }
        }
    }
    if prompts.is_empty() {
        return;
    }
    page.section("Samples");
    page.paragraph("Each arm's first run that continued the prompt.");
    for prompt in prompts.iter().take(PROMPTS) {
        let mut out =
            format!("<h3>{}</h3>\n<div class=\"samples\">\n", text(&cut(prompt, CHARACTERS)));
        for arm in runs.arms.iter().take(ARMS) {
            let found = arm.runs.iter().find_map(|run| {
                let generations = &run.run.generations;
                Some((run, generations.iter().find(|found| found.prompt == *prompt)?))
            });
            if let Some((run, found)) = found {
                // Writing to a String cannot fail.
                let _ = writeln!(
                    out,
                    "<article><h4>{}</h4><pre tabindex=\"0\">{}</pre></article>",
                    text(&run.run.label),
                    lines(&cut(&found.text, CHARACTERS))
                );
            }
        }
        out.push_str("</div>\n");
        page.push(&out);
    }
    if prompts.len() > PROMPTS {
        let more = prompts.len() - PROMPTS;
        page.paragraph(&format!("{more} more in the runs' samples.json."));
    }
}

/// The first `most` characters, with a mark where there are more.
pub(crate) fn cut(value: &str, most: usize) -> Cow<'_, str> {
    match value.char_indices().nth(most) {
        Some((end, _)) => Cow::Owned(format!("{} […]", &value[..end])),
        None => Cow::Borrowed(value),
    }
}
