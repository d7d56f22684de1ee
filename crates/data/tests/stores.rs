//! What is promised of indices and of stores: an index is believed when all of it fits, a file that
//! somebody reads is never changed, and damage is met with an error.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use common::{Listen, Place, domain, files_in, path};
use cuvee_data::*;
use cuvee_testkit::{prose, write_jsonl, write_texts};
use serde_json::{Value, json};

/// The tiny tokenizer's end of text; ids below 256 are bytes.
const END: u16 = 266;

fn unsplit() -> Place {
    Place { splits: SplitSpec { tune: 0.0, valid: 0.0 }, ..Place::new() }
}

/// Megatron's index, as the table in docs/formats.md has it.
fn index(code: u8, lengths: &[i32], offsets: &[i64], documents: &[i64]) -> Vec<u8> {
    let mut out = b"MMIDIDX\0\0\x01\0\0\0\0\0\0\0".to_vec();
    out.push(code);
    out.extend((lengths.len() as u64).to_le_bytes());
    out.extend((documents.len() as u64).to_le_bytes());
    lengths.iter().for_each(|length| out.extend(length.to_le_bytes()));
    offsets.iter().chain(documents).for_each(|number| out.extend(number.to_le_bytes()));
    out
}

fn u16s(ids: &[u16]) -> Vec<u8> {
    ids.iter().flat_map(|id| id.to_le_bytes()).collect()
}

#[test]
fn an_index_that_loses_tokens_is_refused_and_never_read_in_part() {
    let place = unsplit();
    // Three sequences of two tokens each.
    place.write("x.bin", u16s(&[70, END, 71, END, 72, END]));
    let with = |offsets: &[i64], documents: &[i64]| {
        place.write("x.idx", index(8, &[2, 2, 2], offsets, documents));
        place.one(path("x.idx"))
    };
    let offsets = [0, 4, 8];
    for (documents, read) in [(&[0, 1, 2, 3][..], 3), (&[0, 2, 3], 2), (&[0, 0, 3, 3], 3)] {
        assert_eq!(with(&offsets, documents).unwrap().manifest.counts.read, read);
        let _ = std::fs::remove_dir_all(place.path("shards"));
    }
    for documents in [&[0, 1, 2][..], &[0], &[1, 2, 3], &[0, 2, 1, 3], &[0, 1, 2, 4]] {
        let error = with(&offsets, documents).unwrap_err().to_string();
        assert!(error.contains("x.idx: expected ") && error.contains("\nhint: "), "{error}");
        assert!(inspect(&place.path("x.idx")).is_err());
    }
    for offsets in [[0, 4, 4], [0, 0, 8], [4, 0, 8], [0, 5, 8], [0, 4, 12], [0, -4, 8]] {
        let error = with(&offsets, &[0, 1, 2, 3]).unwrap_err().to_string();
        assert!(error.contains("x.idx: expected sequence ") && error.contains("hint: "), "{error}");
    }
}

#[test]
fn an_id_that_cannot_be_is_shown_as_it_stands_in_its_document() {
    let place = unsplit();
    // Documents of several sequences, and of none.
    let ids = [70i64, 71, -1, 72, (1 << 32) + 5];
    place.write("x.bin", ids.iter().flat_map(|id| id.to_le_bytes()).collect::<Vec<u8>>());
    let write = |lengths: &[i32], documents: &[i64]| {
        let mut at = 0;
        let offsets: Vec<i64> = lengths
            .iter()
            .map(|length| {
                at += i64::from(*length) * 8;
                at - i64::from(*length) * 8
            })
            .collect();
        place.write("x.idx", index(5, lengths, &offsets, documents));
    };
    write(&[1, 0, 1, 3], &[0, 1, 1, 4]);
    let error = place.refusal(path("x.idx"));
    assert!(error.contains("x.bin, document 2: expected token ids below 267, found -1"), "{error}");
    let place2 = unsplit();
    place2.write("x.bin", ids[3..].iter().flat_map(|id| id.to_le_bytes()).collect::<Vec<u8>>());
    place2.write("x.idx", index(5, &[1, 1], &[0, 8], &[0, 1, 2]));
    let error = place2.refusal(path("x.idx"));
    assert!(error.contains("document 1") && error.contains("found 4294967301"), "{error}");
    // Neither does another format get a made-up id.
    for to in [Format::DATATROVE, Format::MEGATRON, Format::NANOGPT] {
        let error = convert_as(&place2, "x.idx", "out", to).unwrap_err().to_string();
        assert!(error.contains("found 4294967301, token 1 of the file"), "{error}");
    }
}

fn convert_as(place: &Place, from: &str, to: &str, format: Format) -> Result<Vec<Converted>> {
    let request = Convert {
        input: &place.path(from),
        input_as: TokensAs::default(),
        split: None,
        output: &place.path(to),
        to: format,
        end_of_text: Some(u32::from(END)),
        interrupted: &AtomicBool::new(false),
    };
    convert(&request, &Silent)
}

#[test]
fn endings_in_capital_letters_are_those_of_the_format() {
    let place = unsplit();
    place.write("d/X.BIN", u16s(&[70, END]));
    place.write("d/X.IDX", index(8, &[2], &[0], &[0, 1]));
    for what in ["d", "d/X", "d/X.IDX", "d/X.BIN", "d/*", "d/*.IDX"] {
        assert_eq!(place.one(path(what)).unwrap().manifest.counts.read, 1, "{what}");
        std::fs::remove_dir_all(place.path("shards")).unwrap();
    }
    assert!(inspect(&place.path("d/X")).is_ok());
    convert_as(&place, "d/X", "d/Y.DS", Format::DATATROVE).unwrap();
    assert!(place.path("d/Y.ds").is_file() && place.path("d/Y.ds.index").is_file());
    for ending in ["", ".index", ".metadata"] {
        let capital = format!("e/Z.DS{}", ending.to_ascii_uppercase());
        place.write(&capital, std::fs::read(place.path(&format!("d/Y.ds{ending}"))).unwrap());
    }
    assert_eq!(place.one(path("e")).unwrap().manifest.counts.read, 1);
}

#[test]
fn inspecting_takes_no_memory_for_tokens() {
    // One document of 2²⁸ tokens, all of it a hole in the disk; decoded it would take 1 GiB.
    let place = unsplit();
    let tokens = 1i32 << 28;
    std::fs::File::create(place.path("x.bin")).unwrap().set_len(2 * tokens as u64).unwrap();
    place.write("x.idx", index(8, &[tokens], &[0], &[0, 1]));
    match inspect(&place.path("x")).unwrap() {
        Inspection::Shard { longest, max_id, .. } => {
            assert_eq!((longest, max_id), (tokens as u64, Some(0)));
        }
        other => panic!("{other:?}"),
    }
}

/// The tokens of a shard as they are mapped now.
fn mapped(shard: &Shard) -> Vec<u32> {
    let mut tokens = vec![0; shard.tokens() as usize];
    shard.read(0, &mut tokens);
    tokens
}

#[test]
fn who_has_mapped_a_shard_keeps_it_whatever_is_prepared_anew() {
    let place = Place { splits: SplitSpec { tune: 0.3, valid: 0.3 }, ..Place::new() };
    let entries = [domain("d", path("a.jsonl"))];
    write_texts(&place.path("a.jsonl"), &prose(60, 300));
    let old = place.prepare(&entries).unwrap().domains.remove(0);
    let expected = Split::ALL.map(|split| mapped(old.shard(split)));
    assert!(expected.iter().all(|tokens| !tokens.is_empty()));
    let check = |doing: &str| {
        for (split, expected) in Split::ALL.into_iter().zip(&expected) {
            assert_eq!(mapped(old.shard(split)), *expected, "{doing}");
            old.shard(split).check_ids(267).unwrap();
        }
    };
    // By one worker, with fewer tokens and two empty splits.
    let unsplit = Place { splits: SplitSpec { tune: 0.0, valid: 0.0 }, ..place };
    write_texts(&unsplit.path("a.jsonl"), &prose(61, 3));
    let new = unsplit.prepare(&entries).unwrap().domains.remove(0);
    assert_eq!(new.shard(Split::Tune).tokens(), 0);
    check("one worker");
    // By two.
    write_texts(&unsplit.path("a.jsonl"), &prose(62, 5));
    for number in [1, 2] {
        unsplit.prepare_part(&entries, Share::new(number, 2).unwrap()).unwrap();
    }
    unsplit.prepare(&entries).unwrap();
    check("two workers");
    // Of text that comes twice, which is copied without its repetitions.
    let twice = [prose(63, 5), prose(63, 5)].concat();
    write_texts(&unsplit.path("a.jsonl"), &twice);
    let entries = [domain("d", SourceSpec { deduplicate: Some(true), ..path("a.jsonl") })];
    let forgets = PrepareOptions { remember_documents: 1, ..PrepareOptions::default() };
    let unsplit = Place { options: forgets, ..unsplit };
    assert_eq!(unsplit.prepare(&entries).unwrap().domains[0].manifest.counts.duplicates, 5);
    check("copied");
    // Made-up ids in its place.
    write_synthetic(&unsplit.path("shards/d"), "d", 10, false).unwrap();
    check("made up");
    let synthetic = Domain::open(&unsplit.path("shards/d")).unwrap();
    write_synthetic(&unsplit.path("shards/d"), "d", 5, true).unwrap();
    assert_eq!(mapped(synthetic.shard(Split::Train)), [0; 10]);
}

#[test]
fn of_several_conversions_to_one_name_one_wins_and_none_is_written_over() {
    let place = unsplit();
    let ids: Vec<Vec<u16>> = (0..6).map(|id| vec![id + 60; 5_000]).collect();
    for (number, ids) in ids.iter().enumerate() {
        place.write(&format!("{number}.bin"), u16s(ids));
        place.write(&format!("{number}.idx"), index(8, &[5_000], &[0], &[0, 1]));
    }
    std::fs::create_dir(place.path("out")).unwrap();
    let results: Vec<Result<Vec<Converted>>> = std::thread::scope(|scope| {
        let convert = |number: usize| {
            let place = &place;
            scope.spawn(move || {
                convert_as(place, &format!("{number}.idx"), "out/x", Format::DATATROVE)
            })
        };
        let threads: Vec<_> = (0..6).map(convert).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let winner = results.iter().position(|result| result.is_ok()).unwrap();
    for result in &results {
        if let Err(error) = result {
            assert!(matches!(error, DataError::Exists { .. }), "{error}");
        }
    }
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
    assert_eq!(std::fs::read(place.path("out/x.ds")).unwrap(), u16s(&ids[winner]));
    let names: Vec<String> = files_in(&place.path("out")).into_keys().collect();
    assert_eq!(names, ["x.ds", "x.ds.index", "x.ds.metadata"]);
}

/// An entry with duplicates within and across its parts.
fn repeating(place: &Place) -> [DomainSource; 1] {
    let docs = prose(70, 1_300);
    let all: Vec<(String, Value)> = docs
        .iter()
        .chain(&docs[..400])
        .chain(&docs[100..900])
        .enumerate()
        .map(|(i, text)| (text.clone(), json!({ "of": (["a", "b", "c"][i % 3]) })))
        .collect();
    write_jsonl(&place.path("a.jsonl"), &all);
    let source = SourceSpec { deduplicate: Some(true), ..path("a.jsonl") };
    [DomainSource { domain_by: Some("meta.of".to_owned()), ..domain("d", source) }]
}

/// Removes the notes of the work, which are not part of a result.
fn results(place: &Place) -> BTreeMap<String, Vec<u8>> {
    let files = files_in(&place.path("shards"));
    std::fs::remove_dir_all(place.path("shards")).unwrap();
    files
}

#[test]
fn duplicates_are_left_out_the_same_however_few_documents_are_remembered() {
    let place = Place::new();
    let entries = repeating(&place);
    place.prepare(&entries).unwrap();
    let expected = results(&place);
    // One bucket, some, and more than there may be files.
    for remember in [10_000, 2_000, 150, 2, 1] {
        let options = PrepareOptions { remember_documents: remember, ..PrepareOptions::default() };
        let place = Place { options, ..Place::new() };
        let entries = repeating(&place);
        let same = |found: BTreeMap<String, Vec<u8>>, how: &str| {
            for (name, bytes) in found.iter().filter(|(name, _)| !name.ends_with(".json")) {
                assert!(expected[name] == *bytes, "{name} differs, {remember} remembered, {how}");
            }
            assert_eq!(found.len(), expected.len());
        };
        place.prepare(&entries).unwrap();
        same(results(&place), "one worker");
        for number in [2, 1, 3] {
            place.prepare_part(&entries, Share::new(number, 3).unwrap()).unwrap();
        }
        place.prepare(&entries).unwrap();
        same(results(&place), "three workers");
    }
}

/// Stops the work at the first sign of a stage.
struct StopIn<'a>(&'a AtomicBool, &'static str);

impl Progress for StopIn<'_> {
    fn start(&self, stage: &str, _: Option<u64>) {
        self.0.store(stage.starts_with(self.1), Ordering::Relaxed);
    }
    fn advance(&self, _: u64) {}
    fn finish(&self, _: &str) {}
}

#[test]
fn finding_duplicates_tells_how_far_it_is_and_can_be_stopped() {
    let options = PrepareOptions { remember_documents: 7, ..PrepareOptions::default() };
    let place = Place { options, ..Place::new() };
    let docs: Vec<String> = (0..40_000).map(|number| (number % 30_000).to_string()).collect();
    write_texts(&place.path("a.jsonl"), &docs);
    let entries = [domain("d", SourceSpec { deduplicate: Some(true), ..path("a.jsonl") })];
    let stop = AtomicBool::new(false);
    let result = place.prepare_with(&entries, &stop, &StopIn(&stop, "find duplicates of d"));
    assert!(matches!(result, Err(DataError::Interrupted)));
    let domain = place.prepare(&entries).unwrap().domains.remove(0);
    assert_eq!(domain.manifest.counts.duplicates, 10_000);
    assert!(!place.path("shards/d/.parts").exists());
}

#[test]
fn the_files_of_an_entry_are_listed_once() {
    let place = Place::new();
    let docs: Vec<(String, Value)> =
        (0..60).map(|i| (format!("text {i}"), json!({ "n": i % 20 }))).collect();
    write_jsonl(&place.path("a.jsonl"), &docs);
    let entries =
        [DomainSource { domain_by: Some("meta.n".to_owned()), ..domain("d", path("a.jsonl")) }];
    let made = place.prepare(&entries).unwrap();
    let dir = place.path("shards/d");
    let read =
        |path: &Path| -> Value { serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap() };
    let files = read(&dir.join("domains.json"))["files"].clone();
    assert_eq!(files.as_array().unwrap().len(), 1);
    for domain in &made.domains {
        assert_eq!(read(&domain.dir.join("shard.json"))["source"]["files"], json!([]));
        let Inspection::Domain { manifest, .. } = inspect(&domain.dir).unwrap() else { panic!() };
        assert_eq!(json!(manifest.source.files), files, "a domain says what it was made of");
    }
    let Inspection::Entry { files: listed, .. } = inspect(&dir).unwrap() else { panic!() };
    assert_eq!(json!(listed), files);
    // As they were written before: each domain has the list, the entry has none.
    let mut list = read(&dir.join("domains.json"));
    list.as_object_mut().unwrap().remove("files");
    std::fs::write(dir.join("domains.json"), list.to_string()).unwrap();
    for domain in &made.domains {
        let mut manifest = read(&domain.dir.join("shard.json"));
        manifest["source"]["files"] = files.clone();
        std::fs::write(domain.dir.join("shard.json"), manifest.to_string()).unwrap();
    }
    assert!(place.prepare(&entries).unwrap().domains.iter().all(|domain| domain.reused));
    let Inspection::Entry { files: listed, .. } = inspect(&dir).unwrap() else { panic!() };
    assert_eq!(json!(listed), files);
}

/// Changes a number in `part.json`, with or without the checksum.
fn damage(part: &Path, pointer: &str, to: u64, with_check: bool) {
    let path = part.join("part.json");
    let mut record: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    *record.pointer_mut(pointer).unwrap_or_else(|| panic!("{pointer}")) = json!(to);
    if !with_check {
        record.as_object_mut().unwrap().remove("check").unwrap();
    }
    std::fs::write(path, record.to_string()).unwrap();
}

#[test]
fn a_damaged_record_of_a_part_is_an_error_with_a_hint_or_made_again() {
    let place = Place::new();
    let entries = [domain("d", SourceSpec { deduplicate: Some(true), ..path("a.jsonl") })];
    write_texts(&place.path("a.jsonl"), &prose(48, 300));
    place.prepare(&entries).unwrap();
    let expected = results(&place);
    let numbers = [
        "/documents",
        "/bytes",
        "/skipped",
        "/noted",
        "/read",
        "/domains/0/counts/read",
        "/domains/0/counts/duplicates",
        "/domains/0/splits/0/documents",
        "/domains/0/splits/1/tokens",
        "/domains/0/splits/2/bytes",
    ];
    for pointer in numbers {
        for (to, with_check) in [(u64::MAX, false), (u64::MAX, true), (1 << 47, true), (7, true)] {
            // Of two workers' parts, the damaged one is named.
            for number in [1, 2] {
                place.prepare_part(&entries, Share::new(number, 2).unwrap()).unwrap();
            }
            let part = place.path("shards/d/.parts/1-of-2");
            damage(&part, pointer, to, with_check);
            let error = place.prepare(&entries).unwrap_err().to_string();
            let words = "missing: 1/2 (damaged)\nhint: run `cuvee prepare CONFIG --shard 1/2`";
            assert!(error.contains(words), "{pointer} = {to}: {error}");
            // Its worker makes it again, with a word.
            let place_part = place.prepare_part(&entries, Share::new(1, 2).unwrap()).unwrap();
            assert!(place_part[0].work.is_some_and(|work| work.bytes > 0));
            place.prepare(&entries).unwrap();
            assert_eq!(results(&place), expected);
        }
    }
}

#[test]
fn a_part_goes_on_only_where_its_record_can_be_true() {
    let place = Place::new();
    write_texts(&place.path("a.jsonl"), &prose(49, 400));
    let entries = [domain("d", path("a.jsonl"))];
    place.prepare(&entries).unwrap();
    let expected = results(&place);
    let part = place.path("shards/d/.parts/1-of-1");
    for (pointer, to) in [("/next/span", 5), ("/next/span", u64::MAX), ("/documents", u64::MAX)] {
        // Interrupted at once, it stands at the start.
        place.prepare_with(&entries, &AtomicBool::new(true), &Silent).unwrap_err();
        damage(&part, pointer, to, false);
        let listen = Listen::default();
        place.prepare_with(&entries, &AtomicBool::new(false), &listen).unwrap();
        let said = &listen.said()[0];
        assert!(said.contains("cannot be gone on with and is made again"), "{said}");
        assert_eq!(results(&place), expected, "nothing is lost");
    }
    // A record without a checksum, as older versions wrote it, is gone on with.
    place.prepare_with(&entries, &AtomicBool::new(true), &Silent).unwrap_err();
    damage(&part, "/version", 1, false);
    let listen = Listen::default();
    place.prepare_with(&entries, &AtomicBool::new(false), &listen).unwrap();
    assert_eq!(listen.said().len(), 1, "{:?}", listen.said());
    assert_eq!(results(&place), expected);
}
