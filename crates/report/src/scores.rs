//! What evaluations on texts and items give, and their tables.

use serde::Serialize;

use crate::number::decimal;
use crate::table::{error, fitting};

/// A mean with its standard error; `None` where one observation has no spread.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Estimate {
    /// The mean.
    pub value: f64,
    /// Its standard error.
    pub standard_error: Option<f64>,
}

/// A source's line in an evaluation on texts.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TextScore {
    /// Its name.
    pub name: String,
    /// Documents with at least one token.
    pub documents: u64,
    /// Sequences they were cut into.
    pub windows: u64,
    /// Tokens scored; special tokens are none of them.
    pub tokens: u64,
    /// Bytes of text that these tokens stand for.
    pub bytes: u64,
    /// Mean cross-entropy, nats a token.
    pub loss: f64,
    /// Its standard error over the documents.
    pub standard_error: Option<f64>,
    /// exp(loss).
    pub perplexity: f64,
    /// The same nats as `loss`, in bits for each byte of text.
    pub bits_per_byte: f64,
    /// Its standard error over the documents.
    pub bits_per_byte_standard_error: Option<f64>,
}

/// What several sources come to.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct TextMean {
    /// Nats a token.
    pub loss: Estimate,
    /// exp(loss).
    pub perplexity: f64,
    /// Bits a byte.
    pub bits_per_byte: Estimate,
}

/// A quantity by what log-likelihoods are divided by before choices are compared.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Normalised<T> {
    /// Nothing.
    pub raw: T,
    /// The choice's tokens.
    pub token: T,
    /// The choice's characters.
    pub character: T,
    /// The choice's bytes.
    pub byte: T,
}

impl<T> Normalised<T> {
    /// What `of` makes of each.
    pub fn map<U>(&self, of: impl Fn(&T) -> U) -> Normalised<U> {
        Normalised {
            raw: of(&self.raw),
            token: of(&self.token),
            character: of(&self.character),
            byte: of(&self.byte),
        }
    }
}

/// A task's line in an evaluation on items, or the mean of several tasks.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TaskScore {
    /// Its name.
    pub name: String,
    /// What it belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Tasks, where this is a mean of several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tasks: Option<u64>,
    /// Items.
    pub items: u64,
    /// Continuations that were cut on the left to fit the context.
    pub truncated: u64,
    /// Of the right answer, in nats.
    pub log_likelihood: Estimate,
    /// Of the right answer, in bits for each byte of it.
    pub bits_per_byte: Estimate,
    /// Share of items whose right answer is the likeliest; absent without choices.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<Normalised<Estimate>>,
    /// Probability of the right answer among the choices; absent without choices.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probability: Option<Normalised<Estimate>>,
}

/// Texts, and under several sources their mean, each counting once, and the mean by tokens.
pub fn text_table(rows: &[TextScore], mean: &TextMean, weighted: &TextMean) -> String {
    let header = ["source", "tokens", "loss", "± s.e.", "perplexity", "bits per byte", "± s.e."];
    fitting(&header, |whole| {
        let of_row = |row: &TextScore| {
            vec![
                row.name.clone(),
                whole(row.tokens),
                decimal(row.loss, 3),
                error(row.standard_error),
                decimal(row.perplexity, 1),
                decimal(row.bits_per_byte, 3),
                error(row.bits_per_byte_standard_error),
            ]
        };
        let of_mean = |name: &str, mean: &TextMean| {
            vec![
                name.to_owned(),
                String::new(),
                decimal(mean.loss.value, 3),
                error(mean.loss.standard_error),
                decimal(mean.perplexity, 1),
                decimal(mean.bits_per_byte.value, 3),
                error(mean.bits_per_byte.standard_error),
            ]
        };
        let mut lines: Vec<Vec<String>> = rows.iter().map(of_row).collect();
        if rows.len() > 1 {
            lines.push(of_mean("mean of sources", mean));
            lines.push(of_mean("mean by tokens", weighted));
        }
        lines
    })
}

/// Tasks, and under them means of several.
pub fn task_table(rows: &[TaskScore], means: &[TaskScore]) -> String {
    let header =
        ["task", "items", "accuracy", "± s.e.", "by byte", "p(right)", "bits per byte", "± s.e."];
    fitting(&header, |whole| {
        let of_row = |row: &TaskScore| {
            let shown = |value: Option<f64>| {
                value.map_or_else(|| "–".to_owned(), |value| decimal(value, 3))
            };
            let accuracy = row.accuracy.as_ref();
            vec![
                row.name.clone(),
                whole(row.items),
                shown(accuracy.map(|by| by.raw.value)),
                error(accuracy.and_then(|by| by.raw.standard_error)),
                shown(accuracy.map(|by| by.byte.value)),
                shown(row.probability.as_ref().map(|by| by.raw.value)),
                decimal(row.bits_per_byte.value, 3),
                error(row.bits_per_byte.standard_error),
            ]
        };
        rows.iter().chain(means).map(of_row).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn estimate(value: f64) -> Estimate {
        Estimate { value, standard_error: Some(0.01) }
    }

    #[test]
    fn means_stand_under_several_sources_and_a_task_without_choices_has_no_accuracy() {
        let row = TextScore {
            name: "c4_en".to_owned(),
            documents: 12,
            windows: 14,
            tokens: 65_536,
            bytes: 300_000,
            loss: 3.25,
            standard_error: Some(0.0216),
            perplexity: 25.79,
            bits_per_byte: 1.0243,
            bits_per_byte_standard_error: None,
        };
        let mean = TextMean { loss: estimate(3.2), perplexity: 24.5, bits_per_byte: estimate(1.1) };
        let expected = [
            "source           tokens   loss  ± s.e.  perplexity  bits per byte  ± s.e.",
            "c4_en            65,536  3.250   0.022        25.8          1.024       –",
            "c4_en            65,536  3.250   0.022        25.8          1.024       –",
            "mean of sources          3.200   0.010        24.5          1.100   0.010",
            "mean by tokens           3.200   0.010        24.5          1.100   0.010",
        ];
        let cells = |text: &str| -> Vec<Vec<String>> {
            let lines = text.lines().filter(|line| !line.starts_with('─'));
            lines.map(|line| line.split_whitespace().map(str::to_owned).collect()).collect()
        };
        let table = text_table(&[row.clone(), row.clone()], &mean, &mean);
        assert_eq!(cells(&table), cells(&expected.join("\n")));
        assert!(!text_table(&[row], &mean, &mean).contains("mean"));
        let task = TaskScore {
            name: "arc".to_owned(),
            group: None,
            tasks: None,
            items: 200,
            truncated: 0,
            log_likelihood: estimate(-12.5),
            bits_per_byte: estimate(1.5),
            accuracy: None,
            probability: None,
        };
        let table = task_table(&[task], &[]);
        assert_eq!(cells(&table)[1], ["arc", "200", "–", "–", "–", "–", "1.500", "0.010"]);
    }
}
