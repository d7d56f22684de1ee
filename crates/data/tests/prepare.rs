//! What `prepare` promises: complete, stable, deterministic, done once.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use common::{Listen, Place, domain, path, texts, texts_of};
use cuvee_data::*;
use cuvee_testkit::{code_like, prose, shared_data, tiny_tokenizer_json, write_jsonl, write_texts};
use serde_json::json;

#[test]
fn every_document_is_in_one_split_with_its_end() {
    let place = Place::new();
    let mut docs = prose(1, 60);
    write_texts(&place.path("a.jsonl"), &docs);
    let domain = place.one(path("a.jsonl")).unwrap();
    docs.sort();
    assert_eq!(texts(&domain), docs);
    let (mut bytes, mut documents) = (0, 0);
    for split in Split::ALL {
        let record = domain.manifest.split(split);
        assert!(record.documents > 0, "{split}");
        assert_eq!(record.documents, domain.shard(split).documents());
        assert_eq!(record.tokens, domain.shard(split).tokens());
        bytes += record.bytes;
        documents += record.documents;
    }
    assert_eq!(documents, 60);
    assert_eq!(bytes, docs.iter().map(|text| text.len() as u64).sum::<u64>());
    let counts = Counts { read: 60, ..Counts::default() };
    assert_eq!(domain.manifest.counts, counts);
    assert_eq!(domain.manifest.token_type, TokenType::U16);
}

#[test]
fn adding_documents_moves_none() {
    let place = Place::new();
    let docs = prose(2, 80);
    let placed = |texts: &[String]| -> BTreeMap<String, Split> {
        write_texts(&place.path("a.jsonl"), texts);
        let domain = place.one(path("a.jsonl")).unwrap();
        assert!(!domain.reused);
        let tokenizer = Tokenizer::from_json(&tiny_tokenizer_json()).unwrap();
        let of = |split| texts_of(&domain, &tokenizer, split).into_iter().map(move |t| (t, split));
        Split::ALL.into_iter().flat_map(of).collect()
    };
    let before = placed(&docs[10..40]);
    let mut more = docs.clone();
    more.reverse();
    let after = placed(&more);
    assert_eq!((before.len(), after.len()), (30, 80));
    for (text, split) in before {
        assert_eq!(after[&text], split);
    }
}

#[test]
fn what_is_up_to_date_is_left_alone() {
    for cache in [false, true] {
        let mut place = Place { cache, ..Place::new() };
        write_texts(&place.path("a.jsonl"), &prose(3, 20));
        write_texts(&place.path("b.jsonl"), &code_like(3, 20));
        let entries = [domain("a", path("a.jsonl")), domain("b", path("b.jsonl"))];
        let reused = |place: &Place, entries: &[DomainSource]| -> Vec<bool> {
            place.prepare(entries).unwrap().domains.iter().map(|domain| domain.reused).collect()
        };
        assert_eq!(reused(&place, &entries), [false, false]);
        assert_eq!(reused(&place, &entries), [true, true]);
        // Another file makes only its own domain out of date.
        write_texts(&place.path("b.jsonl"), &code_like(4, 21));
        assert_eq!(reused(&place, &entries), [true, false]);
        // So does a damaged shard.
        let dir = place.prepare(&entries).unwrap().domains[0].dir.clone();
        std::fs::write(dir.join("train.idx"), b"short").unwrap();
        assert_eq!(reused(&place, &entries), [false, true]);
        // Other splits concern all.
        place.splits.tune = 0.1;
        assert_eq!(reused(&place, &entries), [false, false]);
        // Another tokenizer too.
        let other = tiny_tokenizer_json().replace("[\"Ġ\",\"t\"]", "[\"Ġ\",\"s\"]");
        place.write("tokenizer.json", other.replace("\"Ġt\"", "\"Ġs\""));
        assert_eq!(reused(&place, &entries), [false, false]);
        assert_eq!(reused(&place, &entries), [true, true]);
    }
}

/// Only what can change a token enters a source's identity.
#[test]
fn another_licence_is_written_down_and_nothing_is_tokenized_again() {
    for cache in [false, true] {
        let place = Place { cache, ..Place::new() };
        let docs: Vec<_> =
            prose(16, 30).into_iter().map(|text| (text, json!({"language": "C"}))).collect();
        write_jsonl(&place.path("a.jsonl"), &docs);
        let entries = |license: Option<&str>| {
            let license = license.map(str::to_owned);
            let source = SourceSpec { license, ..path("a.jsonl") };
            let by = DomainSource {
                domain_by: Some("meta.language".into()),
                ..domain("by", source.clone())
            };
            [domain("d", source), by]
        };
        let first = place.prepare(&entries(None)).unwrap();
        let (signature, dir) = (&first.domains[0].manifest.signature, &first.domains[0].dir);
        for license in [Some("MIT"), Some("CC0-1.0"), None] {
            let again = place.prepare(&entries(license)).unwrap();
            assert!(again.domains.iter().all(|domain| domain.reused));
            assert_eq!(
                (&again.domains[0].manifest.signature, &again.domains[0].dir),
                (signature, dir)
            );
            for domain in &again.domains {
                let written = Manifest::read(&domain.dir).unwrap();
                assert_eq!(written, domain.manifest);
                assert_eq!(written.license.as_deref(), license);
                assert_eq!(written.source.spec.license.as_deref(), license);
            }
        }
        assert_eq!(
            place.prepare(&entries(None)).unwrap().domains[0].manifest,
            first.domains[0].manifest
        );
    }
}

/// How the work is done changes nothing of what comes out, and makes nothing out of date.
#[test]
fn options_of_the_work_enter_no_identity() {
    let mut place = Place::new();
    let mut docs = prose(17, 60);
    docs.extend(docs.clone());
    write_texts(&place.path("a.jsonl"), &docs);
    let entry = domain("d", SourceSpec { deduplicate: Some(true), ..path("a.jsonl") });
    let entries = std::slice::from_ref(&entry);
    let first = place.prepare(entries).unwrap();
    let files = common::files_in(&place.path("shards"));
    place.options = PrepareOptions { commit_every: 1, remember_documents: 7 };
    assert!(place.prepare(entries).unwrap().domains[0].reused);
    std::fs::remove_dir_all(&first.domains[0].dir).unwrap();
    assert!(!place.prepare(entries).unwrap().domains[0].reused);
    assert_eq!(common::files_in(&place.path("shards")), files);
    place.options.remember_documents = 0;
    let error = place.prepare(entries).unwrap_err();
    assert!(error.is_usage() && error.to_string().contains("data.remember_documents"), "{error}");
}

/// A source's keys enter its identity as this JSON: what is not given is left out, so that a new
/// key with a default makes no older shard out of date.
#[test]
fn keys_that_are_not_given_enter_no_identity() {
    let spec = SourceSpec { text: "body".into(), min_chars: Some(3), ..path("x") };
    let json = serde_json::to_string(&SourceSpec { path: None, ..spec }).unwrap();
    assert_eq!(json, r#"{"text":"body","min_chars":3}"#);
}

#[test]
fn the_cache_is_shared_by_name_and_folder() {
    let place = Place { cache: true, ..Place::new() };
    write_texts(&place.path("data/a.jsonl"), &prose(5, 20));
    let first = place.prepare(&[domain("one", path("data/a.jsonl"))]).unwrap();
    let second = place.prepare(&[domain("two", path("./data/../data/a.jsonl"))]).unwrap();
    assert!(second.domains[0].reused);
    assert_eq!(second.domains[0].name, "two");
    assert_eq!(second.domains[0].dir, first.domains[0].dir);
    let name = first.domains[0].dir.file_name().unwrap().to_string_lossy().into_owned();
    assert!(name.starts_with("a-") && name.len() == 18, "{name}");
}

#[test]
fn relative_paths_mean_their_own_configs_folder() {
    let place = Place { cache: true, ..Place::new() };
    for (folder, seed) in [("one", 30), ("two", 31)] {
        write_texts(&place.path(&format!("{folder}/a.jsonl")), &prose(seed, 20));
        place.write(&format!("{folder}/tokenizer.json"), tiny_tokenizer_json());
    }
    let from = |folder: &str, name: &str| {
        let mut corpus =
            place.prepare_from(&place.path(folder), &[domain("d", path(name))]).unwrap();
        corpus.domains.remove(0)
    };
    let (one, two) = (from("one", "a.jsonl"), from("two", "a.jsonl"));
    assert!(one.dir != two.dir && texts(&one) != texts(&two));
    // Neither has pushed the other out.
    assert!(from("one", "a.jsonl").reused && from("two", "a.jsonl").reused);
    // One location by whatever way gives the same shards.
    let whole = place.path("one/a.jsonl").to_string_lossy().into_owned();
    for (folder, name) in
        [("two", "../one/a.jsonl"), ("one/../one", "./a.jsonl"), ("two", whole.as_str())]
    {
        let again = from(folder, name);
        assert!(again.reused && again.dir == one.dir, "{folder} {name}");
    }
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(place.path("one"), place.path("two/link")).unwrap();
        assert_eq!(from("two", "link/a.jsonl").dir, one.dir);
        // Through a link, `..` is the folder above where it leads, not above where it stands.
        write_texts(&place.path("a.jsonl"), &prose(32, 20));
        let above = from("two", "link/../a.jsonl");
        assert!(above.dir != two.dir && above.dir != one.dir);
        assert_eq!(above.dir, from("one", "../a.jsonl").dir);
    }
}

#[test]
fn the_result_does_not_depend_on_the_number_of_threads() {
    let bins = |threads: usize| {
        let place = Place::new();
        write_texts(&place.path("a.jsonl"), &prose(6, 300));
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let domain = pool.install(|| place.one(path("a.jsonl"))).unwrap();
        Split::ALL.map(|split| std::fs::read(domain.dir.join(format!("{split}.bin"))).unwrap())
    };
    assert_eq!(bins(1), bins(3));
}

#[test]
fn one_source_splits_into_domains_by_a_column() {
    let place = Place::new();
    let docs: Vec<(String, serde_json::Value)> = prose(7, 30)
        .into_iter()
        .enumerate()
        .map(|(i, text)| (text, json!({"language": (["C", "Rust", "a/b"][i % 3]), "n": (i % 2)})))
        .collect();
    write_jsonl(&place.path("a.jsonl"), &docs);
    let by = |column: &str| DomainSource {
        domain_by: Some(column.to_owned()),
        ..domain("code", path("a.jsonl"))
    };
    let corpus = place.prepare(&[by("meta.language")]).unwrap();
    let names: Vec<&str> = corpus.domains.iter().map(|domain| domain.name.as_str()).collect();
    assert_eq!(names, ["code/C", "code/Rust", "code/a/b"]);
    for (i, domain) in corpus.domains.iter().enumerate() {
        assert_eq!((domain.entry, domain.manifest.counts.read), (0, 10));
        let mut expected: Vec<String> =
            docs.iter().skip(i).step_by(3).map(|(text, _)| text.clone()).collect();
        expected.sort();
        assert_eq!(texts(domain), expected);
    }
    assert!(place.prepare(&[by("meta.language")]).unwrap().domains.iter().all(|d| d.reused));
    // Numbers name domains too.
    let corpus = place.prepare(&[by("meta.n")]).unwrap();
    let names: Vec<&str> = corpus.domains.iter().map(|domain| domain.name.as_str()).collect();
    assert_eq!(names, ["code/0", "code/1"]);
    let Inspection::Entry { domains, .. } = inspect(&place.path("shards/code")).unwrap() else {
        panic!("an entry");
    };
    assert_eq!(domains.len(), 2);
}

#[test]
fn values_without_text_are_told() {
    let place = Place::new();
    let mut docs: Vec<(String, serde_json::Value)> =
        prose(33, 6).into_iter().map(|text| (text, json!({"language": "C"}))).collect();
    docs.push((" \n".to_owned(), json!({"language": "Rust"})));
    docs.push((docs[0].0.clone(), json!({"language": "D"})));
    write_jsonl(&place.path("a.jsonl"), &docs);
    let source = SourceSpec { deduplicate: Some(true), ..path("a.jsonl") };
    let entry = DomainSource { domain_by: Some("meta.language".into()), ..domain("code", source) };
    let listen = Listen::default();
    let corpus =
        place.prepare_with(std::slice::from_ref(&entry), &AtomicBool::new(false), &listen).unwrap();
    assert_eq!(corpus.domains.len(), 1);
    let said = listen.said().pop().unwrap();
    assert!(
        said.ends_with("no domain for `D`, `Rust`: nothing but empty documents or duplicates"),
        "{said}"
    );
    let expected = BTreeMap::from([
        ("D".to_owned(), Counts { read: 1, duplicates: 1, ..Counts::default() }),
        ("Rust".to_owned(), Counts { read: 1, empty: 1, ..Counts::default() }),
    ]);
    let Inspection::Entry { without_text, .. } = inspect(&place.path("shards/code")).unwrap()
    else {
        panic!("an entry");
    };
    assert_eq!(without_text, expected);
    assert!(place.prepare(&[entry]).unwrap().domains[0].reused);
}

#[test]
fn too_many_values_are_a_mistake() {
    let place = Place::new();
    let docs: Vec<(String, serde_json::Value)> =
        (0..1001).map(|i| (format!("text {i}"), json!({"id": i}))).collect();
    write_jsonl(&place.path("a.jsonl"), &docs);
    let entry =
        DomainSource { domain_by: Some("meta.id".to_owned()), ..domain("d", path("a.jsonl")) };
    let error = place.prepare(&[entry]).unwrap_err().to_string();
    assert!(error.contains("at most 1000 different values"), "{error}");
    assert!(error.contains("hint: "), "{error}");
}

#[test]
fn split_units_stay_together() {
    let place = Place::new();
    let docs: Vec<(String, serde_json::Value)> = prose(8, 90)
        .into_iter()
        .enumerate()
        .map(|(i, text)| (text, json!({"book": format!("book {}", i % 9)})))
        .collect();
    write_jsonl(&place.path("a.jsonl"), &docs);
    let source = SourceSpec { split_by: Some("meta.book".to_owned()), ..path("a.jsonl") };
    let domain = place.one(source).unwrap();
    let tokenizer = Tokenizer::from_json(&tiny_tokenizer_json()).unwrap();
    let book = |text: &String| docs.iter().find(|(t, _)| t == text).unwrap().1["book"].clone();
    let mut splits_of_books: BTreeMap<String, Vec<Split>> = BTreeMap::new();
    for split in Split::ALL {
        for text in texts_of(&domain, &tokenizer, split) {
            splits_of_books.entry(book(&text).to_string()).or_default().push(split);
        }
    }
    assert_eq!(splits_of_books.len(), 9);
    for splits in splits_of_books.values() {
        assert!(splits.len() == 10 && splits.iter().all(|split| *split == splits[0]));
    }
    // By file: one file, one split; the other two exist and are empty.
    let source = SourceSpec { split_by: Some("file".to_owned()), ..path("a.jsonl") };
    let domain = place.one(source).unwrap();
    let counts: Vec<u64> = Split::ALL.map(|split| domain.shard(split).documents()).to_vec();
    assert_eq!(counts.iter().filter(|count| **count == 0).count(), 2, "{counts:?}");
    assert_eq!(domain.manifest.split(Split::Train).documents, counts[0]);
}

#[test]
fn files_found_by_a_pattern_are_split_one_by_one() {
    let place = Place::new();
    let files = 24;
    for i in 0..files {
        place.write(&format!("s/{i}/train.txt"), format!("text of file {i}"));
    }
    let by_file = |name: &str| {
        let domain = place.one(SourceSpec { split_by: Some("file".into()), ..path(name) }).unwrap();
        let tokenizer = Tokenizer::from_json(&tiny_tokenizer_json()).unwrap();
        Split::ALL.map(|split| {
            let mut texts = texts_of(&domain, &tokenizer, split);
            texts.sort();
            texts
        })
    };
    // As files of the folder, all in `s`, each has its own place in the splits; a pattern changes
    // nothing.
    let folder = by_file("s");
    assert!(folder.iter().all(|texts| !texts.is_empty()), "{folder:?}");
    assert_eq!(folder.iter().map(Vec::len).sum::<usize>(), files);
    for pattern in ["s/*/train.txt", "s/*", "s/**/*.txt", "./s/../s/*/*"] {
        assert_eq!(by_file(pattern), folder, "{pattern}");
    }
}

#[test]
fn duplicates_are_left_out_where_asked() {
    let place = Place::new();
    let mut docs = prose(9, 10);
    docs.extend(docs.clone());
    docs.push("  \n".to_owned());
    write_texts(&place.path("a.jsonl"), &docs);
    let domain = place.one(path("a.jsonl")).unwrap();
    assert_eq!(domain.manifest.counts, Counts { read: 21, empty: 1, ..Counts::default() });
    let source = SourceSpec { deduplicate: Some(true), ..path("a.jsonl") };
    let domain = place.one(source).unwrap();
    let counts = Counts { read: 21, empty: 1, duplicates: 10, ..Counts::default() };
    assert_eq!(domain.manifest.counts, counts);
    assert_eq!(texts(&domain).len(), 10);
}

#[test]
fn interruption_leaves_nothing_that_looks_complete() {
    struct Stop<'a>(&'a AtomicBool);
    impl Progress for Stop<'_> {
        fn start(&self, _: &str, _: Option<u64>) {}
        fn advance(&self, _: u64) {
            self.0.store(true, Ordering::Relaxed);
        }
        fn finish(&self, _: &str) {}
    }
    let place = Place::new();
    write_texts(&place.path("a.jsonl"), &prose(10, 2000));
    let entries = [domain("a", path("a.jsonl"))];
    let flag = AtomicBool::new(false);
    let error = place.prepare_with(&entries, &flag, &Stop(&flag)).unwrap_err();
    assert!(matches!(error, DataError::Interrupted), "{error}");
    let left: std::collections::BTreeSet<String> = std::fs::read_dir(place.path("shards/a"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    // What was done is kept, hidden.
    assert_eq!(left, [".lock".to_owned(), ".parts".to_owned()].into());
    // Files of a killed run that nothing knows of are no obstacle, and what was there before stays
    // whole.
    place.write("shards/a/.parts/1-of-1/0.train.bin", "half a token");
    assert!(!place.prepare(&entries).unwrap().domains[0].reused);
    write_texts(&place.path("a.jsonl"), &prose(11, 2000));
    flag.store(false, Ordering::Relaxed);
    place.prepare_with(&entries, &flag, &Stop(&flag)).unwrap_err();
    assert_eq!(Domain::open(&place.path("shards/a")).unwrap().manifest.counts.read, 2000);
}

#[test]
fn progress_adds_up_to_the_bytes_on_disk() {
    #[derive(Default)]
    struct Sum {
        total: AtomicU64,
        done: AtomicU64,
    }
    impl Progress for Sum {
        fn start(&self, _: &str, total: Option<u64>) {
            self.total.fetch_add(total.unwrap_or(0), Ordering::Relaxed);
        }
        fn advance(&self, bytes: u64) {
            self.done.fetch_add(bytes, Ordering::Relaxed);
        }
        fn finish(&self, _: &str) {}
    }
    let place = Place::new();
    write_texts(&place.path("a.jsonl"), &prose(12, 100));
    place.write("b.txt", prose(12, 100).join("\n\n"));
    let sum = Sum::default();
    let entries = [domain("a", path("a.jsonl")), domain("b", path("b.txt"))];
    let corpus = place.prepare_with(&entries, &AtomicBool::new(false), &sum).unwrap();
    let tokens = corpus.domains[0].dir.join("train");
    let entries = [domain("c", path(&tokens.to_string_lossy()))];
    place.prepare_with(&entries, &AtomicBool::new(false), &sum).unwrap();
    assert!(sum.total.load(Ordering::Relaxed) > 0);
    assert_eq!(sum.done.into_inner(), sum.total.into_inner());
}

#[test]
fn a_trained_tokenizer_is_made_once_and_only_of_training_text() {
    let mut place = Place::new();
    place.tokenizer = TokenizerSpec {
        train: Some(TrainTokenizerSpec { vocab_size: 400, sample_bytes: 20_000 }),
        ..TokenizerSpec::default()
    };
    write_texts(&place.path("a.jsonl"), &prose(13, 100));
    write_texts(&place.path("b.jsonl"), &code_like(13, 100));
    let entries = [domain("a", path("a.jsonl")), domain("b", path("b.jsonl"))];
    let first = place.prepare(&entries).unwrap();
    assert_eq!(first.tokenizer.vocab_size(), 400);
    let second = place.prepare(&entries).unwrap();
    assert!(second.domains.iter().all(|domain| domain.reused));
    assert_eq!(second.tokenizer.json(), first.tokenizer.json());
    // Made again, it is the same.
    std::fs::remove_dir_all(place.path("shards")).unwrap();
    assert_eq!(place.prepare(&entries).unwrap().tokenizer.json(), first.tokenizer.json());
    assert_eq!(
        std::fs::read_to_string(place.path("shards/a/tokenizer.json")).unwrap(),
        first.tokenizer.json()
    );
    // A word that occurs in held-out documents alone is not learned.
    let spec = SplitSpec { tune: 0.0, valid: 0.999_999 };
    place.splits = spec;
    let mut rare = prose(13, 100);
    rare.iter_mut().for_each(|text| *text = format!("{text} xylophonexylophone"));
    write_texts(&place.path("a.jsonl"), &rare);
    let corpus = place.prepare(&entries).unwrap();
    assert_eq!(corpus.domains[0].shard(Split::Train).documents(), 0);
    assert!(!corpus.tokenizer.json().contains("xy"));
}

#[test]
fn the_sample_takes_the_same_of_each_domain() {
    // Two alphabets, one domain much larger: half of the merges' text is of each.
    let mut place = Place::new();
    place.tokenizer.file = None;
    place.tokenizer.train = Some(TrainTokenizerSpec { vocab_size: 300, sample_bytes: 4_000 });
    place.splits = SplitSpec { tune: 0.0, valid: 0.0 };
    for file in 0..40 {
        place.write(&format!("large/{file:02}.txt"), "abcd ".repeat(400));
    }
    place.write("small.txt", "wxyz ".repeat(400));
    let entries = [domain("large", path("large")), domain("small", path("small.txt"))];
    let listen = Listen::default();
    let corpus = place.prepare_with(&entries, &AtomicBool::new(false), &listen).unwrap();
    for word in ["abcd", "wxyz"] {
        assert_eq!(corpus.tokenizer.encode(word).unwrap().len(), 1, "{word}");
    }
    // 2,000 bytes of each: no more, though the large one has forty times that.
    assert_eq!(listen.said()[0], "tokenizer: sampled 4000 bytes of 2 domains");
}

#[test]
fn the_sample_ends_where_a_text_had_to_be_cut() {
    let mut place = Place::new();
    place.tokenizer.file = None;
    place.tokenizer.train = Some(TrainTokenizerSpec { vocab_size: 300, sample_bytes: 1_001 });
    place.splits = SplitSpec { tune: 0.0, valid: 0.0 };
    // 1,001 bytes end within a character. Reading on would come to the line that is no JSON.
    place.write("a.jsonl", format!("{}\nno JSON\n", json!({ "text": "ä".repeat(1_000) })));
    let listen = Listen::default();
    let entries = [domain("d", path("a.jsonl"))];
    let error = place.prepare_with(&entries, &AtomicBool::new(false), &listen).unwrap_err();
    assert_eq!(listen.said()[0], "tokenizer: sampled 1000 bytes of 1 domain");
    assert!(error.to_string().contains("a.jsonl:2: "), "{error}");
}

#[test]
fn a_file_in_place_of_the_store_is_named() {
    let place = Place::new();
    place.write("a.txt", "text");
    for taken in ["shards", "shards/d"] {
        place.write(taken, "a file");
        let error = place.one(path("a.txt")).unwrap_err();
        let words = format!(
            "{}: expected a folder for the shards, found a file\nhint: ",
            place.path(taken).display()
        );
        assert!(error.to_string().contains(&words) && error.is_usage(), "{error}");
        std::fs::remove_file(place.path(taken)).unwrap();
    }
}

#[test]
fn tokenized_shards_are_a_source() {
    let place = Place::new();
    write_texts(&place.path("a.jsonl"), &prose(14, 50));
    let domain = place.one(path("a.jsonl")).unwrap();
    // The whole folder, three shards, split as the text was.
    let dir = domain.dir.to_string_lossy().into_owned();
    let mut corpus = place.prepare(&[common::domain("again", path(&dir))]).unwrap();
    let again = corpus.domains.remove(0);
    assert_eq!(texts(&again), texts(&domain));
    assert_eq!(again.manifest.splits, domain.manifest.splits);
    // A foreign one without end-of-text gets it, by prefix and by pattern.
    let shard = domain.shard(Split::Valid);
    let (mut tokens, mut lengths) = (Vec::new(), Vec::new());
    for i in 0..shard.documents() {
        let document = shard.document(i).unwrap();
        lengths.push(document.len() as i32 - 1);
        tokens.extend(document[..document.len() - 1].iter().map(|id| *id as i32));
    }
    let bytes: Vec<u8> = tokens.iter().flat_map(|id| id.to_le_bytes()).collect();
    place.write("foreign/x.text.bin", bytes);
    place.write("foreign/x.text.idx", index(4, &lengths));
    for name in ["foreign/x.text", "foreign/x.text.idx", "foreign/x.text.bin", "foreign/*"] {
        let mut corpus = place.prepare(&[common::domain("foreign", path(name))]).unwrap();
        let foreign = corpus.domains.remove(0);
        let tokenizer = &corpus.tokenizer;
        let mut expected = texts_of(&domain, tokenizer, Split::Valid);
        expected.sort();
        assert_eq!(texts(&foreign), expected, "{name}");
        let sum = |d: &Domain| Split::ALL.iter().map(|s| d.manifest.split(*s).bytes).sum::<u64>();
        assert_eq!(sum(&foreign), domain.manifest.split(Split::Valid).bytes);
    }
}

/// A Megatron index of one sequence a document, written from FORMATS by hand.
fn index(code: u8, lengths: &[i32]) -> Vec<u8> {
    let size = i64::from(code); // the sizes of 4 and 8 happen to be what is used here
    let mut out = b"MMIDIDX\0\0\x01\0\0\0\0\0\0\0".to_vec();
    out.push(code);
    out.extend((lengths.len() as u64).to_le_bytes());
    out.extend((lengths.len() as u64 + 1).to_le_bytes());
    lengths.iter().for_each(|length| out.extend(length.to_le_bytes()));
    let mut offset = 0;
    for length in lengths {
        out.extend(i64::to_le_bytes(offset));
        offset += i64::from(*length) * size;
    }
    (0..=lengths.len() as i64).for_each(|document| out.extend(document.to_le_bytes()));
    out
}

#[test]
fn domains_open_and_inspect_without_their_sources() {
    let place = Place::new();
    write_texts(&place.path("a.jsonl"), &prose(15, 30));
    let made = place.one(path("a.jsonl")).unwrap();
    std::fs::remove_file(place.path("a.jsonl")).unwrap();
    let opened = Domain::open(&made.dir).unwrap();
    assert_eq!(opened.manifest, made.manifest);
    assert_eq!(opened.name, "d");
    match inspect(&made.dir).unwrap() {
        Inspection::Domain { manifest, .. } => assert_eq!(*manifest, made.manifest),
        other => panic!("{other:?}"),
    }
    match inspect(&made.dir.join("train.idx")).unwrap() {
        Inspection::Shard { documents, tokens, max_id, longest, .. } => {
            let record = made.manifest.split(Split::Train);
            assert_eq!((documents, tokens), (record.documents, record.tokens));
            assert_eq!(max_id, Some(266));
            assert!(longest > 0 && longest < tokens);
        }
        other => panic!("{other:?}"),
    }
    let bin = made.dir.join("train.bin");
    let whole = std::fs::read(&bin).unwrap();
    std::fs::write(&bin, &whole[..whole.len() - 3]).unwrap();
    for error in [Domain::open(&made.dir).err(), inspect(&made.dir).err()] {
        let error = error.unwrap().to_string();
        let words = format!("expected {} bytes, found {}", whole.len(), whole.len() - 3);
        assert!(error.contains(&words) && error.contains("cuvee prepare CONFIG"), "{error}");
    }
    std::fs::write(&bin, &whole).unwrap();
    let manifest = std::fs::read_to_string(made.dir.join("shard.json")).unwrap();
    for (from, to, words) in [
        ("\"version\": 1", "\"version\": 2", "expected format version 1, found 2"),
        ("\"tokens\": ", "\"tokens\": 999999999999", "train.bin: expected "),
        ("\"splits\"", "\"slpits\"", "missing field"),
    ] {
        std::fs::write(made.dir.join("shard.json"), manifest.replacen(from, to, 1)).unwrap();
        let error = Domain::open(&made.dir).unwrap_err().to_string();
        assert!(error.contains(words) && error.contains("hint: "), "{error}");
    }
}

#[test]
fn inspect_takes_every_name_of_a_shard() {
    let place = Place::new();
    let docs: Vec<_> = prose(34, 20).into_iter().map(|text| (text, json!({"n": 1}))).collect();
    write_jsonl(&place.path("a.jsonl"), &docs);
    let by = DomainSource { domain_by: Some("meta.n".into()), ..domain("by", path("a.jsonl")) };
    let made = place.prepare(&[domain("d", path("a.jsonl")), by]).unwrap();
    for name in ["d", "d/", "d/shard.json", "by/1", "by/1/shard.json"] {
        let found = inspect(&place.path("shards").join(name)).unwrap();
        let Inspection::Domain { mut manifest, .. } = found else { panic!("{name}") };
        assert_eq!(manifest.source.files.len(), 1, "{name}");
        let expected = &made.domains[usize::from(name.starts_with("by"))].manifest;
        // The domains of an entry have their files from its list.
        manifest.source.files.clone_from(&expected.source.files);
        assert_eq!(*manifest, *expected);
    }
    for name in ["by", "by/domains.json"] {
        let found = inspect(&place.path("shards").join(name)).unwrap();
        let Inspection::Entry { domains, without_text, .. } = found else { panic!("{name}") };
        assert_eq!(domains, [made.domains[1].manifest.clone()]);
        assert!(without_text.is_empty());
    }
    for name in ["d/train", "d/train.idx", "d/train.bin"] {
        let found = inspect(&place.path("shards").join(name)).unwrap();
        let Inspection::Shard { path, documents, .. } = found else { panic!("{name}") };
        assert_eq!(path, place.path("shards/d/train.bin"));
        assert_eq!(documents, made.domains[0].manifest.split(Split::Train).documents);
    }
}

#[test]
fn what_cannot_be_inspected_says_what_can() {
    let place = Place::new();
    write_texts(&place.path("a.jsonl"), &prose(35, 20));
    let dir = place.one(path("a.jsonl")).unwrap().dir;
    std::fs::create_dir(place.path("empty")).unwrap();
    place.write("alone.bin", [0, 0]);
    place.write("elsewhere/notes.json", "{}");
    for (name, words) in [
        ("a.jsonl", "found another kind of file\nhint: `cuvee prepare CONFIG` makes shards"),
        ("elsewhere/notes.json", "found another kind of file\nhint: "),
        ("nowhere", "found nothing\nhint: look at the path"),
        ("nowhere.idx", "found nothing\nhint: look at the path"),
        ("nowhere/shard.json", "found nothing\nhint: look at the path"),
        ("empty", "found a folder with no shards\nhint: `cuvee prepare CONFIG`"),
        ("shards", "found a folder of such folders\nhint: pass "),
        ("alone.bin", "found a .bin without its .idx\nhint: "),
        ("alone", "found a .bin without its .idx\nhint: "),
    ] {
        let error = inspect(&place.path(name)).unwrap_err();
        assert!(matches!(error, DataError::NotInspectable { .. }), "{error}");
        let error = error.to_string();
        assert!(error.starts_with(&*place.path(name).to_string_lossy()), "{error}");
        assert!(error.contains(words), "{error}");
    }
    let error = inspect(&place.path("shards")).unwrap_err().to_string();
    assert!(error.ends_with(&format!("hint: pass {}", dir.display())), "{error}");
    // Damaged: by its own name and as one of the domain's.
    let idx = dir.join("train.idx");
    let whole = std::fs::read(&idx).unwrap();
    std::fs::write(&idx, &whole[..whole.len() - 5]).unwrap();
    for name in [&idx, &dir.join("train"), &dir] {
        let error = inspect(name).unwrap_err().to_string();
        let words = format!(
            "expected {} bytes, found {}: the file is truncated",
            whole.len(),
            whole.len() - 5
        );
        assert!(error.contains(&words) && error.contains("\nhint: "), "{error}");
    }
    std::fs::remove_file(&idx).unwrap();
    let error = inspect(&dir).unwrap_err().to_string();
    assert!(error.contains("train.idx") && error.contains("\nhint: "), "{error}");
}

#[test]
fn real_corpora_of_every_format_prepare_together() {
    let Some(data) = shared_data() else {
        eprintln!("skipped: no shared test data");
        return;
    };
    let mut place = Place::new();
    place.tokenizer.file = Some(data.join("tokenizers/smollm2"));
    place.splits = SplitSpec::default();
    let at = |name: &str| path(&data.join(name).to_string_lossy());
    let parquet = SourceSpec { split_by: Some("meta.chapter".to_owned()), ..at("latex_math") };
    let entries = [
        domain("code", at("code")),
        domain("latex", SourceSpec { split_by: None, ..parquet }),
        domain("books", at("books/*.txt")),
        domain("dialog", at("dialog/sgd.jsonl")),
    ];
    let corpus = place.prepare(&entries).unwrap();
    // Documents and text bytes from the data's own MANIFEST.md.
    for (domain, documents, bytes) in [
        (&corpus.domains[0], Some(644), 9_862_844),
        (&corpus.domains[1], Some(849), 6_997_730),
        (&corpus.domains[2], None, 5_140_423),
        (&corpus.domains[3], Some(3_794), 3_999_417),
    ] {
        let sum = |of: fn(&SplitRecord) -> u64| -> u64 {
            Split::ALL.iter().map(|split| of(domain.manifest.split(*split))).sum()
        };
        assert_eq!(sum(|record| record.bytes), bytes, "{}", domain.name);
        if let Some(documents) = documents {
            assert_eq!(sum(|record| record.documents), documents, "{}", domain.name);
        }
        for split in Split::ALL {
            assert!(domain.shard(split).documents() > 0, "{} {split}", domain.name);
        }
        domain.shard(Split::Train).check_ids(corpus.tokenizer.vocab_size()).unwrap();
    }
    // A book is cut at paragraphs into pieces of at most 16 KiB.
    let books = corpus.domains[2].manifest.split(Split::Train);
    assert!(books.bytes / books.documents > 12_000, "{books:?}");
}

#[test]
fn corruption_reaches_train_and_tune_and_never_valid() {
    let mut place = Place::new();
    place.splits = SplitSpec { tune: 0.2, valid: 0.2 };
    write_texts(&place.path("a.jsonl"), &prose(7, 120));
    let clean = place.one(path("a.jsonl")).unwrap();
    let corrupt = CorruptSpec { shuffle_tokens: 1.0 };
    let damaged = place.one(SourceSpec { corrupt: Some(corrupt), ..path("a.jsonl") }).unwrap();
    for split in Split::ALL {
        let (before, after) = (clean.shard(split), damaged.shard(split));
        assert_eq!(before.documents(), after.documents());
        assert!(before.documents() > 5, "{split}");
        for i in 0..before.documents() {
            let (mut before, mut after) = (before.document(i).unwrap(), after.document(i).unwrap());
            assert_eq!(before == after, split == Split::Valid, "{split} document {i}");
            assert_eq!(before.last(), after.last(), "a document still ends with the end of text");
            before.sort_unstable();
            after.sort_unstable();
            assert_eq!(before, after);
        }
    }
    assert_eq!(damaged.manifest.source.spec.corrupt, Some(corrupt), "shard.json tells of it");
}
