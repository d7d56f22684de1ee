//! Whether both libraries do the same with a tokenizer, on texts made to find where they do not.
//!
//! Odd characters of many scripts, runs of white space, digits, contractions, emoji, control
//! characters; the file's added tokens in all surroundings; and pieces of its vocabulary. Some
//! thousand characters in all, so that a probe takes a few milliseconds.

use super::fast::Fast;
use super::file::TokenizerFile;
use super::reference::Reference;

/// What texts are put together from.
const PIECES: [&str; 78] = [
    "the",
    "The",
    " a",
    "hello",
    " world",
    "HELLO",
    "don't",
    "we'LL",
    "I'm",
    "'s",
    "’t",
    "x",
    " ",
    "  ",
    "    ",
    "\t",
    "\n",
    "\n\n",
    "\r\n",
    " \n ",
    "\u{a0}",
    "\u{3000}",
    "\u{2028}",
    "\u{85}",
    "1",
    "12",
    "345",
    "6789",
    "1,000.5",
    "²",
    "٣٤",
    "Ⅳ",
    "½",
    "-",
    "--",
    "_",
    "...",
    "!?",
    "(",
    "]}",
    "a_b",
    "x-y",
    "=-=",
    "é",
    "e\u{301}",
    "ß",
    "İ",
    "ı",
    "ﬁ",
    "①",
    "Å",
    "ǅ",
    "ς",
    "naïve",
    "Straße",
    "Привет",
    "мир",
    "日本語",
    "漢字",
    "カナ",
    "한국어",
    "\u{1100}\u{1161}\u{11a8}",
    "ไทย",
    "हिन्दी",
    "العربية",
    "עברית",
    "😀",
    "👨\u{200d}👩\u{200d}👧",
    "🏳️\u{200d}🌈",
    "\u{200b}",
    "\u{ad}",
    "\u{feff}",
    "\u{0}",
    "\u{1}",
    "\u{7f}",
    "\u{fffd}",
    "▁",
    "\u{10ffff}",
];
/// Words that are long for a model that has a limit.
const LONG: [usize; 3] = [40, 101, 300];
/// Added tokens, and pieces of the vocabulary, that are tried.
const MOST_ADDED: usize = 64;
const MOST_TOKENS: usize = 256;

/// Whether both encode the texts to the same ids, as documents and as prompts, and decode these to
/// the same text. Where both fail, they agree.
pub(super) fn agree(fast: &Fast, reference: &Reference, file: &TokenizerFile) -> bool {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    texts(file).iter().all(|text| {
        [false, true].into_iter().all(|prompt| {
            ours.clear();
            theirs.clear();
            let by_fast = match prompt {
                false => fast.encode(text, &mut ours),
                true => fast.encode_prompt(text, &mut ours),
            };
            let encoded = reference.encode(text, prompt, &mut theirs);
            match (by_fast, encoded) {
                // A byte without a token goes to the reference in any case.
                (Ok(false), Ok(())) => true,
                (Ok(true), Ok(())) => {
                    ours == theirs
                        && (prompt || fast.decode(&ours).ok() == reference.decode(&theirs).ok())
                }
                (by_fast, encoded) => by_fast.is_err() && encoded.is_err(),
            }
        })
    })
}

/// Why the reference fails, where it does so on the first texts, which are plain words.
pub(super) fn failure(reference: &Reference, file: &TokenizerFile) -> Option<String> {
    let mut failed = None;
    for text in texts(file).into_iter().take(12) {
        match reference.encode(&text, false, &mut Vec::new()) {
            Ok(()) if !text.is_empty() => return None,
            Ok(()) => {}
            Err(error) => failed = Some(error),
        }
    }
    failed
}

/// The texts for a file.
pub(super) fn texts(file: &TokenizerFile) -> Vec<String> {
    let piece = |number: usize| PIECES[number % PIECES.len()];
    let count = PIECES.len();
    let mut texts = vec![String::new()];
    texts.extend(PIECES.iter().map(|piece| (*piece).to_owned()));
    // Steps without a factor in common with their number: every piece meets many others.
    for step in [1, 5, 7, 11, 17, 19, 23, 29] {
        for start in (0..count).step_by(6) {
            let numbers = (0..6).map(|number| start + number * step);
            texts.push(numbers.map(piece).collect());
        }
    }
    texts.extend(LONG.map(|length| format!("a {} b", "ab".repeat(length / 2))));
    let added = file.added().filter_map(|token| token["content"].as_str()).take(MOST_ADDED);
    for (number, token) in added.enumerate() {
        let (before, behind) = (piece(number), piece(number * 7 + 3));
        texts.push(format!("{before}{token}{behind} {token} {token}{token}  {token}\n{token}x"));
        texts.push(token.to_owned());
    }
    // Evenly over the vocabulary, in the order of the ids, so that the choice is always the same.
    let mut tokens: Vec<(&u32, &String)> =
        file.vocabulary.iter().map(|(token, id)| (id, token)).collect();
    tokens.sort_unstable();
    let stride = tokens.len().div_ceil(MOST_TOKENS).max(1);
    let tokens: Vec<&str> =
        tokens.iter().step_by(stride).map(|(_, token)| token.as_str()).collect();
    texts.extend(tokens.chunks(4).map(|tokens| tokens.concat()));
    texts.extend(tokens.chunks(4).map(|tokens| spelled(&tokens.join(" "))));
    texts
}

/// Tokens as text would have them: with the spaces that they stand for.
fn spelled(tokens: &str) -> String {
    tokens.replace(['▁', 'Ġ'], " ").replace("##", "").replace("</w>", " ")
}
