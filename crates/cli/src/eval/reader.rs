//! A model with its tokenizer: how a text becomes the sequences that it is scored by.
//!
//! In: documents, and continuations of contexts. Out: ids. The rules are those of
//! lm-evaluation-harness for causal models, so that its numbers come out.

use cuvee_data::{Tokenizer, model_beginning_of_text};
use cuvee_train::{Engine, Precision};
use cuvee_words::counted;

use super::request::EvalArgs;
use crate::model_source::ModelSource;
use crate::session::Session;

/// A model that reads.
pub struct Reader {
    /// The model.
    pub engine: Box<dyn Engine>,
    /// Its way of reading.
    pub tokens: Tokens,
}

/// A tokenizer and what stands around texts.
pub struct Tokens {
    tokenizer: Tokenizer,
    /// What a text begins with: the token that the tokenizer's settings begin texts with, else the
    /// one that ends them, which is what stood before a document in training.
    prefix: u32,
    prefix_text: String,
    /// Tokens that the model reads at once.
    pub context: usize,
}

/// A continuation behind its context.
#[derive(Debug, Clone, PartialEq)]
pub struct Pair {
    /// Both, or of a context that is too long the end.
    pub tokens: Vec<u32>,
    /// Tokens of the continuation.
    pub scored: usize,
    /// Whether the context was cut.
    pub truncated: bool,
}

impl Reader {
    /// The model that the arguments name, reading at most `context` tokens unless they say how
    /// many.
    ///
    /// # Errors
    /// No model, or none with a tokenizer.
    pub fn open(args: &EvalArgs, context: usize, session: &Session) -> anyhow::Result<Self> {
        let source = ModelSource::find(&args.checkpoint, session)?;
        let tokenizer = source.tokenizer()?;
        let begins = model_beginning_of_text(&source.folder, &tokenizer)?;
        let prefix = begins.unwrap_or(tokenizer.end_of_text());
        let engine = source.engine(&args.train(), session)?;
        let context = args.context.unwrap_or(context).min(engine.model().longest());
        let prefix_text = tokenizer.decode(&[prefix]);
        Ok(Self { engine, tokens: Tokens { tokenizer, prefix, prefix_text, context } })
    }

    /// What the engine computes in.
    pub fn precision(&self) -> Precision {
        self.engine.precision()
    }
}

impl Tokens {
    /// The token that texts begin with.
    pub fn prefix(&self) -> u32 {
        self.prefix
    }

    /// The bytes that spell `id`, if it is a special token.
    pub fn special_bytes(&self, id: u32) -> Option<usize> {
        self.tokenizer.special_bytes(id)
    }

    /// The ids of a document, with the one before it.
    ///
    /// # Errors
    /// The tokenizer cannot encode it.
    pub fn document(&self, text: &str) -> cuvee_data::Result<Vec<u32>> {
        let mut ids = vec![self.prefix];
        self.tokenizer.encode_to(text, &mut ids)?;
        Ok(ids)
    }

    /// The ids of `continuation` behind `context`. White space at the context's end goes to the
    /// continuation, both are encoded as one text, and what is longer than the context alone is the
    /// continuation. Where there is no context, the continuation is encoded alone, behind the
    /// prefix.
    ///
    /// # Errors
    /// In words: a continuation that has no token of its own, or does not fit the model's context.
    pub fn pair(&self, context: &str, continuation: &str) -> anyhow::Result<Result<Pair, String>> {
        let kept = context.trim_end_matches(is_space);
        let moved = format!("{}{continuation}", &context[kept.len()..]);
        let (mut tokens, scored) = if kept.is_empty() {
            let mut ids = Vec::new();
            self.tokenizer.encode_to(&moved, &mut ids)?;
            if ids.first() != Some(&self.prefix) {
                ids.insert(0, self.prefix);
            }
            let scored = ids.len() - 1;
            (ids, scored)
        } else {
            let before = self.text(kept)?;
            let whole = self.text(&format!("{kept}{moved}"))?;
            let scored = whole.len().saturating_sub(before.len());
            (whole, scored)
        };
        if scored == 0 || scored == tokens.len() {
            return Ok(Err(format!(
                "expected tokens of its own, found none: the context alone has as many tokens as with it, {}",
                tokens.len()
            )));
        }
        if scored > self.context {
            return Ok(Err(format!(
                "expected at most {}, which is the model's context, found {scored}",
                counted(self.context, "token")
            )));
        }
        let most = self.context + 1;
        let truncated = tokens.len() > most;
        if truncated {
            tokens.drain(..tokens.len() - most);
        }
        Ok(Ok(Pair { tokens, scored, truncated }))
    }

    /// The ids of a text with what the tokenizer puts around one, unless it begins so already.
    fn text(&self, text: &str) -> cuvee_data::Result<Vec<u32>> {
        match text.starts_with(&self.prefix_text) {
            true => self.tokenizer.encode(text),
            false => self.tokenizer.encode_prompt(text),
        }
    }
}

/// White space as Python's `str.rstrip` has it.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn tokens(context: usize) -> Tokens {
        let tokenizer = Tokenizer::from_json(&cuvee_testkit::tiny_tokenizer_json()).unwrap();
        let prefix = tokenizer.end_of_text();
        let prefix_text = tokenizer.decode(&[prefix]);
        Tokens { tokenizer, prefix, prefix_text, context }
    }

    #[test]
    fn a_pair_is_one_text_cut_where_the_context_ends() {
        let tokens = tokens(64);
        let encode = |text: &str| tokens.tokenizer.encode(text).unwrap();
        let pair = |context: &str, continuation: &str| {
            tokens.pair(context, continuation).unwrap().unwrap()
        };
        let whole = encode("the end of it");
        let scored = whole.len() - encode("the end").len();
        // White space moves to the continuation.
        for (context, continuation) in [("the end", " of it"), ("the end ", "of it")] {
            let expected = Pair { tokens: whole.clone(), scored, truncated: false };
            assert_eq!(pair(context, continuation), expected);
        }
        let odd = pair("the end\u{1f}\u{a0}", "x");
        assert_eq!(odd.tokens, encode("the end\u{1f}\u{a0}x"));
        assert_eq!(odd.tokens.len() - odd.scored, encode("the end").len());
        // Without a context the prefix stands before the text, once.
        let alone = [&[tokens.prefix][..], &encode("the end")].concat();
        let expected = Pair { scored: alone.len() - 1, tokens: alone, truncated: false };
        assert_eq!(pair("", "the end"), expected);
        assert_eq!(pair("", &format!("{}the end", tokens.prefix_text)), expected);
        assert_eq!(tokens.document("the end").unwrap(), expected.tokens);
        assert_eq!(pair(" ", "the").tokens[1..], encode(" the"));
    }

    #[test]
    fn a_long_context_is_cut_on_the_left_and_a_long_continuation_refused() {
        let whole = tokens(64).pair("the end of the end of", " the end").unwrap().unwrap();
        let short = tokens(whole.scored + 1);
        let cut = short.pair("the end of the end of", " the end").unwrap().unwrap();
        assert!(cut.truncated && cut.scored == whole.scored);
        assert_eq!(cut.tokens, whole.tokens[whole.tokens.len() - whole.scored - 2..]);
        let error = tokens(1).pair("the", " end of the end").unwrap().unwrap_err();
        assert!(error.contains("at most 1 token") && error.contains("found "), "{error}");
        let error = tokens(8).pair("the end", "").unwrap().unwrap_err();
        assert!(error.contains("found none"), "{error}");
    }
}
