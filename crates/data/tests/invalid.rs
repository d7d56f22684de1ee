//! Documents that cannot be used, and files that are something else: each is named, skipped or
//! mended, and counted.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use common::{Listen, Place, domain, path, texts};
use cuvee_data::*;
use cuvee_testkit::prose;
use flate2::write::GzEncoder;
use parquet::data_type::{
    ByteArray, ByteArrayType, FixedLenByteArray, FixedLenByteArrayType, FloatType, Int32Type,
    Int64Type, Int96, Int96Type,
};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::stream::encode_all(bytes, 1).unwrap()
}

fn with(name: &str, on_invalid: OnInvalid) -> SourceSpec {
    SourceSpec { on_invalid: Some(on_invalid), ..path(name) }
}

const GOOD: &str = "{\"text\": \"good\", \"key\": \"k\"}\n";

/// Prepares one domain and gives what was said, too.
fn heard(place: &Place, source: SourceSpec) -> (Result<Domain>, Vec<String>) {
    let listen = Listen::default();
    let corpus = place.prepare_with(&[domain("d", source)], &AtomicBool::new(false), &listen);
    (corpus.map(|mut corpus| corpus.domains.remove(0)), listen.said())
}

#[test]
fn every_line_that_cannot_be_used_is_named_or_skipped_and_counted() {
    use Invalid::{HalfSurrogate, Key, MissingColumn, NotJson, NotObject, NotText, NotUtf8};
    let place = Place::new();
    let cases: &[(&[u8], Invalid, &str)] = &[
        (b"{\"text\": \"b\xffd\", \"key\": 1}", NotUtf8, "an invalid byte at offset"),
        (b"\xff\xfe{\x00\"\x00", NotUtf8, "the mark FF FE of UTF-16"),
        (
            b"{\"text\": \"\\ud83d\", \"key\": 1}",
            HalfSurrogate,
            "half a surrogate pair (`\\ud83d`)",
        ),
        (b"{\"text\": \"x\", \"key\": \"\\udc80\"}", HalfSurrogate, "column `key`"),
        (b"\"context\"", NotObject, "a text alone (`\"context\"`)"),
        (b"[\"text\", \"foo\"]", NotObject, "a list of texts"),
        (b"42", NotObject, "a number (42)"),
        (b"null", NotObject, "nothing (null)"),
        (b"{\"text\": \"x\"", NotJson, "an object that goes on in the next line"),
        (b"{\"text\": \"x", NotJson, "a text without its closing quote"),
        (b"{\"text\": \"x\"}{\"text\": \"y\"}", NotJson, "a second value on the same line"),
        (b"{\"text\": \"x\"},", NotJson, "a comma behind the object"),
        (b"\xef\xbb\xbf{\"text\": \"x\", \"key\": 1}", NotJson, "a byte-order mark (EF BB BF)"),
        (b"\0\0\0\0", NotJson, "4 NUL bytes"),
        (b"{\"text\": \"a\0b\", \"key\": 1}", NotJson, "a NUL byte within a text"),
        (b"{'text': 'x'}", NotJson, "a single quote, as Python writes texts"),
        (b"{\"text\": [\"a\", \"list\"], \"key\": 1}", NotText, "a list of texts"),
        (b"{\"text\": [1, 2], \"key\": 1}", NotText, "a list of numbers"),
        (b"{\"text\": {\"a\": 1}, \"key\": 1}", NotText, "expected text, found an object"),
        (b"{\"text\": 7, \"key\": 1}", NotText, "expected text, found a number (7)"),
        (b"{\"text\": NaN, \"key\": 1}", NotText, "expected text, found NaN"),
        (
            b"{\"body\": \"x\", \"key\": 1}",
            MissingColumn,
            "no column `text`: expected it, found `key`, `body`",
        ),
        (
            b"{\"text\": \"x\", \"key\": null}",
            Key,
            "column `key`: expected text or a number, found nothing",
        ),
        (b"{\"text\": \"x\", \"key\": NaN}", Key, "found NaN"),
        (b"{\"text\": \"x\", \"key\": []}", Key, "found a list (empty)"),
        (b"{\"text\": \"x\"}", Key, "no column `key`"),
    ];
    for (line, reason, words) in cases {
        let content = [GOOD.as_bytes(), line, b"\n", GOOD.as_bytes()].concat();
        for (name, content) in [("a.jsonl", content.clone()), ("b.jsonl.gz", gzip(&content))] {
            place.write(name, content);
            let split_by = |on| SourceSpec { split_by: Some("key".into()), ..with(name, on) };
            let error = place.refusal(split_by(OnInvalid::Error));
            assert!(error.contains(words), "{error}");
            assert!(error.contains(&format!("{name}:2: ")) || error.contains("line 2"), "{error}");
            assert!(error.contains("on_invalid = \"skip\"") || *reason == HalfSurrogate, "{error}");
            let (skipped, said) = heard(&place, split_by(OnInvalid::Skip));
            let skipped = skipped.unwrap();
            assert_eq!(texts(&skipped), ["good", "good"]);
            let counts = Counts {
                read: 3,
                invalid_skipped: 1,
                invalid_reasons: InvalidCounts::of(*reason, 1),
                ..Counts::default()
            };
            assert_eq!(skipped.manifest.counts, counts, "{error}");
            let summary = said.iter().find(|line| line.contains("1 invalid left out")).unwrap();
            assert!(summary.contains(words) && !summary.contains("hint"), "{summary}");
        }
    }
    // All at once, counted one by one.
    let lines: Vec<u8> = cases.iter().flat_map(|(line, ..)| [line, &b"\n"[..]].concat()).collect();
    place.write("a.jsonl", [GOOD.as_bytes(), &lines, GOOD.as_bytes()].concat());
    let by = SourceSpec { split_by: Some("key".into()), ..with("a.jsonl", OnInvalid::Skip) };
    let manifest = place.one(by).unwrap().manifest;
    for reason in [HalfSurrogate, Key, MissingColumn, NotJson, NotObject, NotText, NotUtf8] {
        let count = cases.iter().filter(|(_, is, _)| *is == reason).count() as u64;
        assert_eq!(manifest.counts.invalid_reasons.get(reason), count, "{reason:?}");
    }
    assert_eq!(manifest.counts.invalid_skipped, cases.len() as u64);
}

#[test]
fn what_columns_hold_that_nobody_asked_for_does_not_matter() {
    let place = Place::new();
    let lines = r#"{"text": "one", "score": NaN}
{"score": -Infinity, "text": "two", "more": [Infinity, {"x": NaN}]}
{"text": "three", "title": "odd \ud83d title"}
{"meta": {"body": "x", "score": NaN, "half": "\udc80"}, "text": "four"}
{"text": "five \ud83d\ude00", "\ud800": 1, "many": 1e999}
"#;
    place.write("a.jsonl", lines);
    for on_invalid in [OnInvalid::Error, OnInvalid::Skip, OnInvalid::Replace] {
        let domain = place.one(with("a.jsonl", on_invalid)).unwrap();
        assert_eq!(texts(&domain), ["five \u{1f600}", "four", "one", "three", "two"]);
        let counts = Counts { read: 5, ..Counts::default() };
        assert_eq!(domain.manifest.counts, counts, "{on_invalid:?}");
    }
}

#[test]
fn half_a_surrogate_pair_is_replaced_where_that_is_asked_for() {
    let place = Place::new();
    place.write(
        "a.jsonl",
        "{\"text\": \"a \\ud83d b\"}\n{\"text\": \"\\udc80 first \\ud83d\\ude00\"}\n{\"text\": \"c\"}\n",
    );
    let domain = place.one(with("a.jsonl", OnInvalid::Replace)).unwrap();
    assert_eq!(texts(&domain), ["a \u{fffd} b", "c", "\u{fffd} first \u{1f600}"]);
    let counts = Counts { read: 3, invalid_replaced: 2, ..Counts::default() };
    assert_eq!(domain.manifest.counts, counts);
    let error = place.refusal(path("a.jsonl"));
    assert!(error.contains("set `on_invalid = \"replace\"` to put U+FFFD"), "{error}");
    // What cannot be mended is an error all the same.
    place.write("a.jsonl", "{\"text\": \"c\"}\n{\"text\": 7}\n");
    let error = place.refusal(with("a.jsonl", OnInvalid::Replace));
    assert!(error.contains("found a number (7)"), "{error}");
}

#[test]
fn a_line_that_is_too_long_is_passed_over_and_the_next_is_read() {
    let place = Place::new();
    let mut text = GOOD.as_bytes().to_vec();
    text.extend_from_slice(b"{\"text\": \"");
    text.resize(text.len() + (66 << 20), b'x');
    text.extend_from_slice(b"\"}\n");
    text.extend_from_slice(GOOD.as_bytes());
    place.write("a.jsonl", &text);
    place.write("b.jsonl.zst", zstd(&text));
    for name in ["a.jsonl", "b.jsonl.zst"] {
        let error = place.refusal(path(name));
        let words = format!("{name}:2: expected one JSON object a line, found a line of more than");
        assert!(error.contains(&words), "{error}");
        let domain = place.one(with(name, OnInvalid::Skip)).unwrap();
        assert_eq!(texts(&domain), ["good", "good"]);
        let counts = Counts {
            read: 3,
            invalid_skipped: 1,
            invalid_reasons: InvalidCounts::of(Invalid::LongLine, 1),
            ..Counts::default()
        };
        assert_eq!(domain.manifest.counts, counts);
    }
    // Workers whose share begins within it find the line behind it.
    let entry = [domain("d", with("a.jsonl", OnInvalid::Skip))];
    std::fs::remove_dir_all(place.path("shards")).unwrap();
    for share in ["1/4", "2/4", "3/4", "4/4"] {
        place.prepare_part(&entry, share.parse().unwrap()).unwrap();
    }
    let domain = place.prepare(&entry).unwrap().domains.remove(0);
    assert_eq!(texts(&domain), ["good", "good"]);
    assert_eq!(domain.manifest.counts.invalid_reasons.get(Invalid::LongLine), 1);
}

#[test]
fn files_that_are_one_value_are_refused_as_a_whole() {
    let place = Place::new();
    let records: Vec<_> = (0..60)
        .map(|number| serde_json::json!({ "text": format!("record {number} of an array") }))
        .collect();
    let wrapped = serde_json::json!({ "data": records });
    let pretty = |value: &serde_json::Value| serde_json::to_string_pretty(value).unwrap();
    let stream: String = records.iter().map(|record| pretty(record) + "\n").collect();
    let records = serde_json::Value::from(records);
    for (name, content, words, command) in [
        ("one.json", records.to_string(), "a JSON array: ", "jq -c '.[]'"),
        ("bom.json", format!("\u{feff}{records}\n"), "a JSON array: ", "jq -c '.[]'"),
        ("pretty.json", pretty(&records), "a JSON array over several lines", "jq -c '.[]'"),
        ("wrapped.json", pretty(&wrapped), "a JSON object over several lines", "jq -c '.data[]'"),
        ("stream.json", stream, "a JSON object over several lines", "jq -c . "),
        ("page.json", "<!DOCTYPE html>\n<html></html>".to_owned(), "a web page", "fetch"),
    ] {
        for name in [name.to_owned(), format!("{name}.gz")] {
            let content = content.as_bytes();
            let is_gz = name.ends_with("gz");
            place.write(&name, if is_gz { gzip(content) } else { content.to_vec() });
            for on_invalid in [OnInvalid::Error, OnInvalid::Skip, OnInvalid::Replace] {
                let error = place.refusal(with(&name, on_invalid));
                assert!(error.contains(&format!("{name}:1: ")), "{error}");
                assert!(error.contains(words) && error.contains(command), "{error}");
            }
        }
    }
    // One value on one line is a line like any other, and says so where nothing else is there.
    place.write("a.json", wrapped.to_string());
    let error = place.refusal(with("a.json", OnInvalid::Skip));
    assert!(error.contains("1 invalid: 1 without the text column"), "{error}");
    assert!(error.contains("the first of these: ") && error.contains("found `data`"), "{error}");
    let commas: Vec<String> = records.as_array().unwrap().iter().map(ToString::to_string).collect();
    place.write("b.json", commas.join(",\n"));
    let error = place.refusal(path("b.json"));
    assert!(error.contains("b.json:1: ") && error.contains("a comma behind the object"), "{error}");
}

#[test]
fn a_domain_of_which_nothing_is_left_says_why() {
    let mut place = Place::new();
    place.write("a.jsonl", "Once upon a time\nthere was a file\n");
    let skip = with("a.jsonl", OnInvalid::Skip);
    let error = place.refusal(skip.clone());
    let found = "found 2 in 1 file (0 without text, 2 invalid: 2 not JSON); the first of these: ";
    assert!(error.contains(found), "{error}");
    assert!(error.contains("a.jsonl:1: ") && error.contains("`Once upon a time`"), "{error}");
    assert!(
        error.ends_with("\nhint: if the file is plain text, say so: `format = \"txt\"`"),
        "{error}"
    );
    // Other Macs' line ends make one line of a file.
    place.write("a.jsonl", "{\"text\": \"x\"}\r{\"text\": \"y\"}\r");
    let error = place.refusal(skip.clone());
    assert!(
        error.contains("carriage returns (CR) alone") && error.contains("tr '\\r' '\\n'"),
        "{error}"
    );
    // The same while a tokenizer is sampled.
    place.tokenizer.file = None;
    place.tokenizer.train = Some(TrainTokenizerSpec { vocab_size: 300, sample_bytes: 1000 });
    assert_eq!(place.refusal(skip), error);
}

#[test]
fn the_end_of_a_file_that_was_cut_off_is_called_that() {
    let place = Place::new();
    for (end, words) in [
        ("{\"text\": \"half of a li", "ends inside a text, and the file with it"),
        ("{\"text\": \"x\"", "ends inside an object, and the file with it"),
    ] {
        place.write("a.jsonl", format!("{GOOD}{end}"));
        let error = place.refusal(path("a.jsonl"));
        assert!(error.contains("a.jsonl:2: ") && error.contains(words), "{error}");
        assert!(error.contains("cut off"), "{error}");
    }
}

#[test]
fn utf_16_and_32_are_named_and_never_made_text_of() {
    let place = Place::new();
    let text = format!("{GOOD}{GOOD}");
    let utf_16 = |mark: &str| -> Vec<u8> {
        format!("{mark}{text}").encode_utf16().flat_map(u16::to_le_bytes).collect()
    };
    let big: Vec<u8> =
        format!("\u{feff}{text}").encode_utf16().flat_map(u16::to_be_bytes).collect();
    let utf_32: Vec<u8> =
        format!("\u{feff}{text}").chars().flat_map(|c| (c as u32).to_le_bytes()).collect();
    for (bytes, words, command) in [
        (utf_16("\u{feff}"), "UTF-16 (it begins with FF FE)", "iconv -f UTF-16 -t UTF-8"),
        (big, "UTF-16 (it begins with FE FF)", "iconv -f UTF-16 -t UTF-8"),
        (utf_16(""), "UTF-16, little-endian, without a mark", "iconv -f UTF-16LE"),
        (utf_32, "UTF-32 (it begins with FF FE 00 00)", "iconv -f UTF-32"),
    ] {
        place.write("a.jsonl", &bytes);
        place.write("a.txt", &bytes);
        place.write("b.jsonl.gz", gzip(&bytes));
        place.write("b.txt.zst", zstd(&bytes));
        for name in ["a.jsonl", "a.txt", "b.jsonl.gz", "b.txt.zst"] {
            for on_invalid in [OnInvalid::Error, OnInvalid::Skip, OnInvalid::Replace] {
                let error = place.refusal(with(name, on_invalid));
                assert!(error.contains(name) && error.contains(words), "{error}");
                assert!(error.contains(command), "{error}");
            }
        }
    }
}

#[test]
fn nul_bytes_are_no_plain_text() {
    let place = Place::new();
    std::fs::create_dir(place.path("a")).unwrap();
    place.write("a/1.txt", "fine");
    place.write("a/2.txt", "padded\0\0\0\0");
    let error = place.refusal(path("a"));
    assert!(
        error.contains("2.txt, plain text: expected text, found a NUL byte at offset 6"),
        "{error}"
    );
    assert!(error.contains(", and 3 more behind it"), "{error}");
    let domain = place.one(with("a", OnInvalid::Skip)).unwrap();
    assert_eq!(texts(&domain), ["fine"]);
    assert_eq!(domain.manifest.counts.invalid_reasons, InvalidCounts::of(Invalid::Nul, 1));
    let domain = place.one(with("a", OnInvalid::Replace)).unwrap();
    assert_eq!(texts(&domain), ["fine", "padded\u{fffd}\u{fffd}\u{fffd}\u{fffd}"]);
    assert_eq!(domain.manifest.counts.invalid_replaced, 1);
    // In JSON it is written out, and somebody meant it.
    place.write("a.jsonl", "{\"text\": \"a\\u0000b\"}\n");
    assert_eq!(texts(&place.one(path("a.jsonl")).unwrap()), ["a\0b"]);
}

#[test]
fn marks_in_the_middle_of_plain_text_are_told_of_once() {
    let place = Place::new();
    let text = "one\n\n".repeat(4) + "\u{feff}two\n\n\u{feff}three";
    place.write("a.txt", format!("\u{feff}{text}"));
    let (domain, said) = heard(&place, SourceSpec { max_document: Some(64), ..path("a.txt") });
    assert_eq!(texts(&domain.unwrap()), [text]);
    let notes = said.iter().filter(|line| line.contains("byte-order marks (EF BB BF)")).count();
    assert_eq!(notes, 1, "{said:?}");
}

#[test]
fn names_and_first_bytes_must_agree() {
    let place = Place::new();
    let (gz, zst) = (gzip(GOOD.as_bytes()), zstd(GOOD.as_bytes()));
    let lfs = "version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 3\n";
    write_typed(&place.path("p.parquet"), &[]);
    let parquet = std::fs::read(place.path("p.parquet")).unwrap();
    let tar = {
        let mut tar = vec![0; 1024];
        tar[..5].copy_from_slice(b"a.txt");
        tar[257..263].copy_from_slice(b"ustar\0");
        tar
    };
    for (name, content, words, hint) in [
        ("a.jsonl", gz.clone(), "found gzip data (it begins with 1F 8B)", ".gz"),
        ("b.txt", gz.clone(), "found gzip data", ".gz"),
        ("a.json", zst.clone(), "found zstd data (it begins with 28 B5 2F FD)", ".zst"),
        ("c.jsonl", parquet, "found a Parquet file (it begins with PAR1)", ".parquet"),
        ("d.jsonl", lfs.into(), "found a pointer of Git LFS", "git lfs pull"),
        ("e.txt", lfs.into(), "found a pointer of Git LFS", "git lfs pull"),
        ("f.parquet", lfs.into(), "found a pointer of Git LFS", "git lfs pull"),
        (
            "g.jsonl.gz",
            GOOD.into(),
            "expected gzip data, as its name says, found plain text",
            "without .gz",
        ),
        (
            "g.jsonl.zst",
            GOOD.into(),
            "expected zstd data, as its name says, found plain text",
            "without .zst",
        ),
        ("h.jsonl.gz", zst.clone(), "found zstd data", ".zst"),
        ("h.jsonl.zst", gz.clone(), "found gzip data", ".gz"),
        ("i.jsonl.gz", gzip(&gz), "found gzip data", ".gz"),
        ("j.txt.gz", gzip(&tar), "found a tar archive", "unpack"),
        ("k.parquet", GOOD.into(), "found JSON", ".jsonl"),
        ("l.parquet", "<html>".into(), "found HTML or XML", "fetch"),
        ("m.parquet", Vec::new(), "found an empty file", "fetch"),
        ("n.parquet", gz.clone(), "found gzip data", ".gz"),
    ] {
        place.write(name, content);
        for on_invalid in [OnInvalid::Error, OnInvalid::Skip, OnInvalid::Replace] {
            let error = place.refusal(with(name, on_invalid));
            let last = error.lines().last().unwrap();
            assert!(error.contains(name) && error.contains(words), "{error}");
            assert!(last.contains(hint), "{error}");
        }
    }
}

#[test]
fn zeros_behind_compressed_data_are_passed_over_with_a_note_and_anything_else_is_an_error() {
    let place = Place::new();
    let both = |one: fn(&[u8]) -> Vec<u8>| [one(GOOD.as_bytes()), one(GOOD.as_bytes())].concat();
    for (name, data) in [("a.jsonl.gz", both(gzip)), ("a.jsonl.zst", both(zstd))] {
        place.write(name, [data.clone(), vec![0; 512]].concat());
        let (domain, said) = heard(&place, path(name));
        assert_eq!(texts(&domain.unwrap()), ["good", "good"]);
        let notes = said.iter().filter(|line| line.contains("512 zero bytes behind its")).count();
        assert_eq!(notes, 1, "{said:?}");
        place.write(name, [data, b"garbage".to_vec()].concat());
        let error = place.refusal(path(name));
        assert!(error.contains("and something else stands behind it (67 61 72"), "{error}");
    }
    // Nothing at all is no error, but beside something.
    std::fs::create_dir(place.path("e")).unwrap();
    for name in ["e/1.jsonl", "e/2.jsonl.gz", "e/3.jsonl.zst", "e/4.txt"] {
        place.write(name, "");
    }
    place.write("e/5.jsonl", GOOD);
    assert_eq!(texts(&place.one(path("e")).unwrap()), ["good"]);
}

/// A row of [`write_typed`].
type Typed<'a> = (&'a str, i32, i64, i64, f32, &'a [u8]);

/// Columns of every meaning that numbers and bytes can have.
fn write_typed(file: &Path, rows: &[Typed<'_>]) {
    let schema = "message schema {
        required binary text (UTF8);
        required int32 day (DATE);
        required int64 time (TIMESTAMP(MILLIS,true));
        required int64 price (DECIMAL(10,2));
        required float size;
        required fixed_len_byte_array(16) id (UUID);
        required int32 count (INTEGER(32,false));
        required int96 old;
        repeated int32 ids;
    }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let out = std::fs::File::create(file).unwrap();
    let properties = Arc::new(WriterProperties::builder().build());
    let mut writer = SerializedFileWriter::new(out, schema, properties).unwrap();
    let mut group = writer.next_row_group().unwrap();
    macro_rules! column {
        ($kind:ty, $value:expr) => {{
            let values: Vec<_> = rows.iter().map($value).collect();
            let mut column = group.next_column().unwrap().unwrap();
            column.typed::<$kind>().write_batch(&values, None, None).unwrap();
            column.close().unwrap();
        }};
    }
    column!(ByteArrayType, |row: &Typed| ByteArray::from(row.0));
    column!(Int32Type, |row: &Typed| row.1);
    column!(Int64Type, |row: &Typed| row.2);
    column!(Int64Type, |row: &Typed| row.3);
    column!(FloatType, |row: &Typed| row.4);
    column!(FixedLenByteArrayType, |row: &Typed| FixedLenByteArray::from(row.5.to_vec()));
    column!(Int32Type, |_: &Typed| -1);
    column!(Int96Type, |_: &Typed| Int96::from(vec![0, 0, 2_440_589]));
    let mut column = group.next_column().unwrap().unwrap();
    let levels = vec![0; rows.len()];
    column.typed::<Int32Type>().write_batch(&[], Some(&levels), Some(&levels)).unwrap();
    column.close().unwrap();
    group.close().unwrap();
    writer.close().unwrap();
}

#[test]
fn values_of_every_type_name_domains_as_people_write_them() {
    let place = Place::new();
    let id: Vec<u8> = (0..16).collect();
    let rows: [Typed; 2] = [
        ("one", 19_782, 1_717_236_000_000, 12_345, 0.1, &id),
        ("two", 19_782, 1_717_236_000_000, 12_345, 0.1, &id),
    ];
    write_typed(&place.path("a.parquet"), &rows);
    for (column, name, kind) in [
        ("day", "2024-02-29", "a date"),
        ("time", "2024-06-01T10:00:00Z", "a time"),
        ("price", "123.45", "a decimal number"),
        ("size", "0.1", "a number"),
        ("id", "00010203-0405-0607-0809-0a0b0c0d0e0f", "a UUID"),
        ("count", "4294967295", "a number"),
        ("old", "1970-01-02T00:00:00", "a time"),
    ] {
        let entry =
            DomainSource { domain_by: Some(column.into()), ..domain("d", path("a.parquet")) };
        let corpus = place.prepare(&[entry]).unwrap();
        let names: Vec<&str> = corpus.domains.iter().map(|domain| &*domain.name).collect();
        assert_eq!(names, [format!("d/{name}")]);
        let error = place.refusal(SourceSpec { text: column.into(), ..path("a.parquet") });
        let words = format!("row 1: column `{column}`: expected text, found {kind} ({name})");
        assert!(error.contains(&words), "{error}");
    }
    let error = place.refusal(SourceSpec { text: "ids".into(), ..path("a.parquet") });
    assert!(error.contains("found a list of numbers") && error.contains("token ids"), "{error}");
}

#[test]
fn control_characters_of_the_data_reach_no_name() {
    let place = Place::new();
    let lines: String = prose(3, 20)
        .iter()
        .map(|text| format!("{}\n", serde_json::json!({ "text": text, "by": "a\u{1b}[2Jb\n" })))
        .collect();
    place.write("a.jsonl", lines);
    let entry = DomainSource { domain_by: Some("by".into()), ..domain("d", path("a.jsonl")) };
    let corpus = place.prepare(&[entry]).unwrap();
    assert_eq!(corpus.domains[0].name, "d/a\\u{1b}[2Jb\\n");
}

/// Whatever is changed in a file, it is read or refused by its name.
#[test]
fn damaged_parquet_is_an_error_with_its_name_and_never_a_panic() {
    let place = Place::new();
    let id: Vec<u8> = (0..16).collect();
    let texts = prose(5, 12);
    let rows: Vec<Typed> = texts.iter().map(|text| (&**text, 1, 2, 3, 0.5, &*id)).collect();
    write_typed(&place.path("a.parquet"), &rows);
    let whole = std::fs::read(place.path("a.parquet")).unwrap();
    let by = SourceSpec { split_by: Some("day".into()), ..path("b.parquet") };
    let mut refused = 0;
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= [0x01, 0x80, 0xff, 0x7f][at % 4];
        std::fs::write(place.path("b.parquet"), &bytes).unwrap();
        if let Err(error) = read_texts(&by, place.root(), usize::MAX) {
            assert!(error.to_string().contains("b.parquet"), "{at}: {error}");
            refused += 1;
        }
    }
    assert!(refused > whole.len() / 8, "{refused} of {}", whole.len());
    for end in (0..whole.len()).step_by(31) {
        std::fs::write(place.path("b.parquet"), &whole[..end]).unwrap();
        let error = read_texts(&by, place.root(), usize::MAX).unwrap_err().to_string();
        assert!(error.contains("b.parquet") && error.contains("\nhint: "), "{error}");
    }
}

#[test]
fn counts_written_before_reasons_were_are_read() {
    let old = r#"{"read":3,"duplicates":0,"invalid_skipped":2,"invalid_replaced":0,"empty":1}"#;
    let counts: Counts = serde_json::from_str(old).unwrap();
    assert_eq!((counts.invalid_skipped, counts.invalid_reasons.total()), (2, 0));
    // What was left out for no reason is written as it was before.
    assert!(!serde_json::to_string(&counts).unwrap().contains("reasons"));
    let new = Counts { invalid_reasons: InvalidCounts::of(Invalid::NotJson, 2), ..counts };
    let json = serde_json::to_string(&new).unwrap();
    assert!(json.contains(r#""invalid_reasons":{"not_json":2}"#), "{json}");
    assert_eq!(serde_json::from_str::<Counts>(&json).unwrap(), new);
}
