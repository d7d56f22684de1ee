//! What `prepare` promises of work in parts: interrupted, shared out or both, it comes to the same
//! files.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use common::{Place, domain, files_in, path};
use cuvee_data::*;
use cuvee_testkit::{code_like, prose, write_jsonl, write_texts};
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::file::writer::SerializedFileWriter;
use serde_json::json;

/// One source of every format, some of it twice, some of it empty; two files that are cut into
/// several pieces.
fn corpus(place: &Place) -> Vec<DomainSource> {
    let mut docs = prose(40, 2500);
    docs.extend_from_within(..50);
    docs.push(" \r\n".to_owned());
    let rows: Vec<(String, serde_json::Value)> = docs
        .iter()
        .enumerate()
        .map(|(i, text)| (text.clone(), json!({"language": (["C", "Rust", "a/b"][i * i % 3])})))
        .collect();
    write_jsonl(&place.path("rows/a.jsonl"), &rows[..10]);
    write_jsonl(&place.path("rows/b.jsonl"), &rows[10..]);
    write_texts(&place.path("rows/c.jsonl"), &[]);
    write_jsonl(&place.path("rows/d.jsonl"), &rows[5..300]);
    for (number, texts) in docs[..600].chunks(200).enumerate() {
        let lines: String =
            texts.iter().map(|text| json!({ "text": text }).to_string() + "\n").collect();
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(lines.as_bytes()).unwrap();
        place.write(&format!("packed/{number}.jsonl.gz"), gz.finish().unwrap());
    }
    for (number, texts) in code_like(41, 90).chunks(9).enumerate() {
        place.write(&format!("plain/{number}.txt"), texts.join("\n\n").repeat(3));
    }
    write_parquet(&place.path("table.parquet"), &docs, 300);
    let all = SourceSpec { deduplicate: Some(true), ..path("rows") };
    vec![
        domain("rows", path("rows")),
        DomainSource {
            domain_by: Some("meta.language".into()),
            ..domain("by", SourceSpec { path: path("rows/[ab]*").path, ..all.clone() })
        },
        domain("unique", all),
        domain("packed", path("packed")),
        domain(
            "plain",
            SourceSpec { max_document: Some(700), deduplicate: Some(true), ..path("plain") },
        ),
        domain("table", path("table.parquet")),
        domain("few", SourceSpec { limit: Some(Limit::Documents(321)), ..path("rows") }),
        domain("some", SourceSpec { limit: Some(Limit::Bytes(200_000)), ..path("packed") }),
    ]
}

fn write_parquet(path: &Path, texts: &[String], rows_in_group: usize) {
    let schema =
        parquet::schema::parser::parse_message_type("message m { required binary text (UTF8); }")
            .unwrap();
    let file = std::fs::File::create(path).unwrap();
    let mut writer = SerializedFileWriter::new(file, Arc::new(schema), Default::default()).unwrap();
    for texts in texts.chunks(rows_in_group) {
        let mut group = writer.next_row_group().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        let values: Vec<ByteArray> = texts.iter().map(|text| text.as_str().into()).collect();
        column.typed::<ByteArrayType>().write_batch(&values, None, None).unwrap();
        column.close().unwrap();
        group.close().unwrap();
    }
    writer.close().unwrap();
}

/// Prepares in one go and gives all files; the shards are gone afterwards.
fn in_one_go(place: &Place, entries: &[DomainSource]) -> BTreeMap<String, Vec<u8>> {
    let corpus = place.prepare(entries).unwrap();
    assert!(corpus.domains.iter().all(|domain| !domain.reused && domain.work.is_some()));
    let files = files_in(&place.path("shards"));
    std::fs::remove_dir_all(place.path("shards")).unwrap();
    files
}

fn assert_same(found: &BTreeMap<String, Vec<u8>>, expected: &BTreeMap<String, Vec<u8>>) {
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (name, bytes) in expected {
        assert!(&found[name] == bytes, "{name} differs");
    }
}

#[test]
fn workers_together_make_what_one_makes() {
    let place = Place::new();
    let entries = corpus(&place);
    let expected = in_one_go(&place, &entries);
    for of in [1, 2, 3, 7] {
        // In any order.
        for number in (1..=of).rev() {
            let parts = place.prepare_part(&entries, Share::new(number, of).unwrap()).unwrap();
            assert_eq!(parts.len(), entries.len());
            // Once more changes nothing.
            let again = place.prepare_part(&entries, Share::new(number, of).unwrap()).unwrap();
            assert_eq!(again[0].documents, parts[0].documents);
            assert_eq!(again[0].work.map(|work| work.bytes), Some(0));
        }
        let corpus = place.prepare(&entries).unwrap();
        assert!(corpus.domains.iter().all(|domain| !domain.reused));
        assert_same(&files_in(&place.path("shards")), &expected);
        // A worker that comes late finds it done.
        assert!(
            place.prepare_part(&entries, Share::new(1, of).unwrap()).unwrap()[0].work.is_none()
        );
        std::fs::remove_dir_all(place.path("shards")).unwrap();
    }
}

#[test]
fn files_that_can_be_split_are() {
    let place = Place::new();
    write_texts(&place.path("a.jsonl"), &prose(42, 400));
    write_parquet(&place.path("b.parquet"), &prose(42, 400), 20);
    for name in ["a.jsonl", "b.parquet"] {
        let entries = [domain(name, path(name))];
        for number in 1..=4 {
            let parts = place.prepare_part(&entries, Share::new(number, 4).unwrap()).unwrap();
            assert!(
                (60..140).contains(&parts[0].documents),
                "{name} {number}: {}",
                parts[0].documents
            );
        }
    }
}

#[test]
fn every_cut_of_a_jsonl_file_gives_each_line_to_one_worker() {
    let place = Place::new();
    // Empty lines, one without a line feed at the end, a byte-order mark.
    place.write(
        "a.jsonl",
        "\u{feff}{\"text\":\"a\"}\n\n{\"text\":\"bc\"}\r\n\n\n{\"text\":\"d\"}\n{\"text\":\"e\"}",
    );
    let entries = [domain("d", path("a.jsonl"))];
    let expected = in_one_go(&place, &entries);
    for of in [1, 2, 3, 5, 8, 13, 21, 34, 55, 80] {
        let documents: u64 = (1..=of)
            .map(|number| {
                place.prepare_part(&entries, Share::new(number, of).unwrap()).unwrap()[0].documents
            })
            .sum();
        assert_eq!(documents, 4, "{of} workers");
        place.prepare(&entries).unwrap();
        assert_same(&files_in(&place.path("shards")), &expected);
        std::fs::remove_dir_all(place.path("shards")).unwrap();
    }
}

#[test]
fn errors_in_the_middle_of_a_file_name_its_line() {
    let place = Place::new();
    let mut lines: Vec<String> =
        prose(43, 200).iter().map(|text| json!({ "text": text }).to_string()).collect();
    lines[149] = "no JSON".to_owned();
    place.write("a.jsonl", lines.join("\n"));
    let entries = [domain("d", path("a.jsonl"))];
    for of in [1, 2, 3, 5, 8] {
        let errors: Vec<String> = (1..=of)
            .filter_map(|number| {
                place.prepare_part(&entries, Share::new(number, of).unwrap()).err()
            })
            .map(|error| error.to_string())
            .collect();
        assert_eq!(errors.len(), 1);
        assert!(errors[0].contains("a.jsonl:150: "), "{}", errors[0]);
        std::fs::remove_dir_all(place.path("shards")).unwrap();
    }
}

#[test]
fn what_lies_behind_a_limit_is_not_looked_at() {
    let place = Place::new();
    let docs = prose(51, 40);
    let mut lines: Vec<String> =
        docs.iter().map(|text| json!({ "text": text }).to_string()).collect();
    lines[30] = "no JSON".to_owned();
    place.write("in/a.jsonl", lines.join("\n"));
    place.write("in/b.jsonl", "no JSON either");
    let limited = |limit| SourceSpec { limit: Some(limit), ..path("in") };
    let made = place.one(limited(Limit::Documents(30))).unwrap();
    assert_eq!((made.manifest.counts.read, common::texts(&made).len()), (30, 30));
    let bytes: usize = docs[..29].iter().map(String::len).sum();
    let made = place.one(limited(Limit::Bytes(bytes as u64 + 1))).unwrap();
    assert_eq!(made.manifest.counts.read, 30);
    assert!(place.refusal(limited(Limit::Documents(31))).contains("a.jsonl:31: "));
}

#[test]
fn missing_parts_are_listed_with_the_command_that_makes_them() {
    let place = Place::new();
    write_texts(&place.path("a.jsonl"), &prose(44, 60));
    write_texts(&place.path("b.jsonl"), &prose(45, 60));
    let entries = [domain("a", path("a.jsonl")), domain("b", path("b.jsonl"))];
    for number in [1, 3] {
        place.prepare_part(&entries, Share::new(number, 4).unwrap()).unwrap();
    }
    let error = place.prepare(&entries).unwrap_err().to_string();
    assert!(
        error.contains(
            "expected all 4 parts of the corpus, found 2; missing: 2/4 (not begun), 4/4 (not begun)"
        ),
        "{error}"
    );
    assert!(error.contains("hint: run `cuvee prepare CONFIG --shard 2/4`"), "{error}");
    // Nothing was put together, also not of another entry.
    assert!(!place.path("shards/a/shard.json").exists());
    // A source that has changed needs its parts made again.
    for number in [2, 4] {
        place.prepare_part(&entries, Share::new(number, 4).unwrap()).unwrap();
    }
    write_texts(&place.path("b.jsonl"), &prose(46, 61));
    let error = place.prepare(&entries).unwrap_err().to_string();
    assert!(
        error.contains("domain `b`") && error.contains("1/4 (made of another config or source)"),
        "{error}"
    );
}

/// Interrupts after a number of pieces.
struct Stop<'a> {
    flag: &'a AtomicBool,
    after: AtomicU64,
    text: AtomicU64,
    read: AtomicU64,
}

impl Progress for Stop<'_> {
    fn start(&self, _: &str, _: Option<u64>) {}
    fn advance(&self, bytes: u64) {
        self.read.fetch_add(bytes, Ordering::Relaxed);
    }
    fn finish(&self, _: &str) {}
    fn text(&self, bytes: u64) {
        self.text.fetch_add(bytes, Ordering::Relaxed);
        if self.after.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.flag.store(true, Ordering::Relaxed);
        }
    }
}

#[test]
fn an_interrupted_run_goes_on_where_it_stopped() {
    let place = Place::new();
    let entries = corpus(&place);
    let expected = in_one_go(&place, &entries);
    let count_text = || {
        let flag = AtomicBool::new(false);
        let progress = Stop {
            flag: &flag,
            after: AtomicU64::new(0),
            text: AtomicU64::new(0),
            read: AtomicU64::new(0),
        };
        place.prepare_with(&entries, &flag, &progress).unwrap();
        std::fs::remove_dir_all(place.path("shards")).unwrap();
        progress.text.into_inner()
    };
    let whole = count_text();
    for every in [2, 7] {
        let (mut runs, mut text) = (0, 0);
        loop {
            let flag = AtomicBool::new(false);
            let progress = Stop {
                flag: &flag,
                after: AtomicU64::new(every),
                text: AtomicU64::new(0),
                read: AtomicU64::new(0),
            };
            let result = place.prepare_with(&entries, &flag, &progress);
            runs += 1;
            text += progress.text.into_inner();
            match result {
                Err(DataError::Interrupted) => {}
                other => {
                    other.unwrap();
                    break;
                }
            }
            assert!(runs < 500, "no run gets any further");
        }
        assert!(runs > 3, "{runs}");
        assert_eq!(text, whole, "no piece is done twice or left out");
        assert_same(&files_in(&place.path("shards")), &expected);
        std::fs::remove_dir_all(place.path("shards")).unwrap();
    }
}

#[test]
fn another_config_or_source_begins_anew_with_a_word() {
    let place = Place::new();
    write_texts(&place.path("a.jsonl"), &prose(47, 300));
    let interrupt = |entries: &[DomainSource]| {
        place.prepare_with(entries, &AtomicBool::new(true), &Silent).unwrap_err();
    };
    interrupt(&[domain("d", path("a.jsonl"))]);
    assert!(place.path("shards/d/.parts/1-of-1/part.json").exists());
    let other = [domain("d", SourceSpec { min_chars: Some(10), ..path("a.jsonl") })];
    let listen = common::Listen::default();
    place.prepare_with(&other, &AtomicBool::new(false), &listen).unwrap();
    assert!(
        listen.said()[0].contains("has changed since an earlier run stopped"),
        "{:?}",
        listen.said()
    );
    assert!(!place.path("shards/d/.parts").exists());
}

#[test]
fn damaged_part_files_are_made_again() {
    let place = Place::new();
    let entries = [domain("d", SourceSpec { deduplicate: Some(true), ..path("a.jsonl") })];
    write_texts(&place.path("a.jsonl"), &prose(48, 300));
    let expected = in_one_go(&place, &entries);
    let part = place.path("shards/d/.parts/1-of-1");
    for damage in ["0.train.bin", "0.valid.lengths", "documents", "part.json"] {
        place.prepare_part(&entries, Share::WHOLE).unwrap();
        let file = part.join(damage);
        let bytes = std::fs::read(&file).unwrap();
        std::fs::write(&file, &bytes[..bytes.len() - 1]).unwrap();
        place.prepare(&entries).unwrap();
        assert_same(&files_in(&place.path("shards")), &expected);
        std::fs::remove_dir_all(place.path("shards")).unwrap();
    }
}

#[test]
fn an_assembly_that_was_killed_is_done_again() {
    let place = Place::new();
    let entries = [domain("d", path("a.jsonl"))];
    write_texts(&place.path("a.jsonl"), &prose(49, 300));
    let expected = in_one_go(&place, &entries);
    let (part, dir) = (place.path("shards/d/.parts/1-of-1"), place.path("shards/d"));
    // After one file was moved, after all were, and after the manifest was written.
    for moved in [&["train"][..], &["train", "tune", "valid"]] {
        place.prepare_part(&entries, Share::WHOLE).unwrap();
        for split in moved {
            std::fs::rename(part.join(format!("0.{split}.bin")), dir.join(format!("{split}.bin")))
                .unwrap();
        }
        place.prepare(&entries).unwrap();
        assert_same(&files_in(&place.path("shards")), &expected);
        std::fs::remove_dir_all(place.path("shards")).unwrap();
    }
    place.prepare_part(&entries, Share::WHOLE).unwrap();
    std::fs::create_dir(place.path("kept")).unwrap();
    std::fs::rename(&part, place.path("kept/part")).unwrap();
    place.prepare(&entries).unwrap();
    std::fs::create_dir_all(part.parent().unwrap()).unwrap();
    std::fs::rename(place.path("kept/part"), &part).unwrap();
    assert!(place.prepare(&entries).unwrap().domains[0].reused);
    assert_same(&files_in(&place.path("shards")), &expected);
}

#[test]
fn each_cleaning_step_is_counted() {
    let place = Place::new();
    let docs = [
        "a\r\nb",
        "a\nb",
        "cafe\u{301} au lait",
        "caf\u{e9} au lait",
        "x",
        " \r",
        "long enough to be left out",
    ];
    write_texts(&place.path("a.jsonl"), &docs.map(str::to_owned));
    let source = SourceSpec {
        strip_cr: true,
        normalize: Some(NormalForm::Nfc),
        min_chars: Some(2),
        max_chars: Some(20),
        deduplicate: Some(true),
        ..path("a.jsonl")
    };
    let made = place.one(source.clone()).unwrap();
    assert_eq!(common::texts(&made), ["a\nb", "caf\u{e9} au lait"]);
    let expected = Counts {
        read: 7,
        duplicates: 2,
        empty: 1,
        too_short: 1,
        too_long: 1,
        cr_stripped: 1,
        normalized: 1,
        ..Counts::default()
    };
    assert_eq!(made.manifest.counts, expected);
    assert_eq!(made.manifest.source.spec, source);
    // What comes tokenized cannot be changed as text.
    let tokens = made.dir.join("train").to_string_lossy().into_owned();
    let error = place.one(SourceSpec { strip_cr: true, ..path(&tokens) }).unwrap_err();
    assert!(error.is_usage() && error.to_string().contains("source.strip_cr"), "{error}");
    // Steps that are off leave no trace: shards made before there were any stay valid.
    let made = place.one(path("a.jsonl")).unwrap();
    let manifest = std::fs::read_to_string(made.dir.join("shard.json")).unwrap();
    for key in ["strip_cr", "normalize", "min_chars", "max_chars", "cr_stripped", "too_short"] {
        assert!(!manifest.contains(key), "{key}");
    }
}

#[test]
fn checksums_are_those_of_the_files() {
    use sha2::{Digest, Sha256};
    let place = Place::new();
    let entries = [domain("d", path("a.jsonl"))];
    write_texts(&place.path("a.jsonl"), &prose(50, 200));
    for of in [1, 3] {
        for number in 1..=of {
            place.prepare_part(&entries, Share::new(number, of).unwrap()).unwrap();
        }
        let made = place.prepare(&entries).unwrap().domains.remove(0);
        for split in Split::ALL {
            let sha256 = |ending: &str| {
                let bytes = std::fs::read(made.dir.join(format!("{split}.{ending}"))).unwrap();
                Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect::<String>()
            };
            let record = made.manifest.split(split);
            assert_eq!((&record.bin_sha256, &record.idx_sha256), (&sha256("bin"), &sha256("idx")));
        }
        std::fs::remove_dir_all(place.path("shards")).unwrap();
    }
}
