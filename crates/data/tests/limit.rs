//! A limit takes the first documents of a source, and looks at no file behind them.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use common::{Place, domain, path, texts};
use cuvee_data::*;
use cuvee_testkit::{prose, write_texts};

/// Three files in a folder: two with documents, and one that nobody could read.
fn place(documents: &[String]) -> Place {
    let place = Place::new();
    let (first, second) = documents.split_at(documents.len() / 2);
    write_texts(&place.path("texts/a.jsonl"), first);
    write_texts(&place.path("texts/b.jsonl"), second);
    place.write("texts/c.jsonl.gz", "no gzip at all");
    place
}

fn limited(limit: Limit) -> SourceSpec {
    SourceSpec { limit: Some(limit), ..path("texts") }
}

fn sorted(texts: &[String]) -> Vec<String> {
    let mut texts = texts.to_vec();
    texts.sort();
    texts
}

#[test]
fn a_number_of_documents_is_the_first_ones_in_the_order_of_the_files() {
    let all = prose(1, 40);
    let place = place(&all);
    for count in [1, 19, 20, 21, 40] {
        let domain = place.one(limited(Limit::Documents(count))).unwrap();
        assert_eq!(texts(&domain), sorted(&all[..count as usize]), "{count}");
    }
    assert!(
        place.one(limited(Limit::Documents(41))).is_err(),
        "the last file is read, and is none"
    );
}

#[test]
fn a_size_ends_with_the_document_that_reaches_it() {
    let all = prose(2, 40);
    let place = place(&all);
    let size = |count: usize| all[..count].iter().map(|text| text.len() as u64).sum::<u64>();
    for (bytes, count) in [(1, 1), (size(20), 20), (size(20) + 1, 21), (size(40), 40)] {
        let domain = place.one(limited(Limit::Bytes(bytes))).unwrap();
        assert_eq!(texts(&domain), sorted(&all[..count]), "{bytes}");
    }
}

#[test]
fn another_limit_is_another_corpus() {
    let place = place(&prose(3, 40));
    assert!(!place.one(limited(Limit::Documents(5))).unwrap().reused);
    assert!(place.one(limited(Limit::Documents(5))).unwrap().reused);
    assert!(!place.one(limited(Limit::Documents(6))).unwrap().reused);
}

#[test]
fn a_tokenizer_learns_from_what_is_within_the_limit() {
    let all = prose(4, 40);
    let train = |documents: &[String], limit: Option<Limit>| {
        let mut place = place(documents);
        if limit.is_none() {
            std::fs::remove_file(place.path("texts/c.jsonl.gz")).unwrap();
        }
        let train = Some(TrainTokenizerSpec { vocab_size: 300, sample_bytes: 100_000 });
        place.tokenizer = TokenizerSpec { train, ..TokenizerSpec::default() };
        let corpus = place.prepare(&[domain("d", SourceSpec { limit, ..path("texts") })]).unwrap();
        corpus.tokenizer.fingerprint().to_owned()
    };
    let within = train(&all, Some(Limit::Documents(10)));
    let (others, rest) = (prose(5, 40), &all[..10]);
    assert_eq!(within, train(rest, None));
    assert_ne!(within, train(&others[..10], None));
}

#[test]
fn tokens_are_limited_by_documents_and_not_by_a_size() {
    let place = Place::new();
    write_texts(&place.path("a.jsonl"), &prose(6, 30));
    let made = place.one(path("a.jsonl")).unwrap();
    let shards = |limit| {
        let base = made.dir.join("train").to_string_lossy().into_owned();
        let other = Place { tokenizer: place.tokenizer.clone(), ..Place::new() };
        other.one(SourceSpec { limit: Some(limit), ..path(&base) })
    };
    assert_eq!(texts(&shards(Limit::Documents(3)).unwrap()).len(), 3);
    let error = shards(Limit::Bytes(100)).unwrap_err().to_string();
    assert!(error.contains("a number of documents") && error.contains("hint: "), "{error}");
}
