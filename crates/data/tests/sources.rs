//! Every kind of source, and every way in which one can be wrong.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use common::{Place, domain, path, texts};
use cuvee_data::*;
use cuvee_testkit::{prose, write_texts};
use flate2::write::GzEncoder;
use parquet::data_type::{ByteArray, ByteArrayType, Int32Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

static NEVER: AtomicBool = AtomicBool::new(false);

fn jsonl(texts: &[&str]) -> String {
    texts.iter().map(|text| format!("{}\n", serde_json::json!({ "text": text }))).collect()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::stream::encode_all(bytes, 1).unwrap()
}

/// A list of texts as Arrow writes it, without rows.
fn write_parquet_list(file: &Path) {
    let schema = "message schema {
        optional group words (LIST) { repeated group list { optional binary element (UTF8); } }
    }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let out = std::fs::File::create(file).unwrap();
    SerializedFileWriter::new(out, schema, Default::default()).unwrap().close().unwrap();
}

/// What [`write_parquet`] writes in a row.
type Row<'a> = (Option<&'a [u8]>, &'a str, Option<&'a str>, i32);

/// Columns `text` (bytes, maybe null), `meta` (JSON), `info.language` and `info.stars` (nested),
/// `tags` (a list), in row groups of two.
fn write_parquet(file: &Path, rows: &[Row]) {
    let schema = "message schema {
        optional binary text (UTF8);
        required binary meta (UTF8);
        optional group info {
            optional binary language (UTF8);
            required int32 stars;
        }
        repeated int32 tags;
    }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let properties = WriterProperties::builder()
        .set_compression(parquet::basic::Compression::ZSTD(Default::default()))
        .build();
    let out = std::fs::File::create(file).unwrap();
    let mut writer = SerializedFileWriter::new(out, schema, Arc::new(properties)).unwrap();
    for rows in rows.chunks(2) {
        let mut group = writer.next_row_group().unwrap();
        let mut strings = |values: Vec<ByteArray>, levels: Option<Vec<i16>>| {
            let mut column = group.next_column().unwrap().unwrap();
            let typed = column.typed::<ByteArrayType>();
            typed.write_batch(&values, levels.as_deref(), None).unwrap();
            column.close().unwrap();
        };
        let bytes = |text: &[u8]| ByteArray::from(text.to_vec());
        strings(
            rows.iter().filter_map(|row| row.0.map(bytes)).collect(),
            Some(rows.iter().map(|row| i16::from(row.0.is_some())).collect()),
        );
        strings(rows.iter().map(|row| bytes(row.1.as_bytes())).collect(), None);
        strings(
            rows.iter().filter_map(|row| row.2.map(|text| bytes(text.as_bytes()))).collect(),
            Some(rows.iter().map(|row| 1 + i16::from(row.2.is_some())).collect()),
        );
        let mut column = group.next_column().unwrap().unwrap();
        let stars: Vec<i32> = rows.iter().map(|row| row.3).collect();
        let levels = vec![1; rows.len()];
        column.typed::<Int32Type>().write_batch(&stars, Some(&levels), None).unwrap();
        column.close().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        let nothing = vec![0; rows.len()];
        column.typed::<Int32Type>().write_batch(&[], Some(&nothing), Some(&nothing)).unwrap();
        column.close().unwrap();
        group.close().unwrap();
    }
    writer.close().unwrap();
}

#[test]
fn compressed_and_plain_files_give_the_same() {
    let place = Place::new();
    let lines = jsonl(&["one", "two\nlines", "dreißig"]);
    place.write("a.jsonl", &lines);
    place.write("a.jsonl.gz", gzip(lines.as_bytes()));
    place.write("a.jsonl.zst", zstd(lines.as_bytes()));
    // Two members or frames after one another are one file to both formats.
    let halves = lines.split_at(lines.find("two").unwrap() - 10);
    place.write("b.json.gz", [gzip(halves.0.as_bytes()), gzip(halves.1.as_bytes())].concat());
    place.write("b.ndjson.zst", [zstd(halves.0.as_bytes()), zstd(halves.1.as_bytes())].concat());
    for name in ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst", "b.json.gz", "b.ndjson.zst"] {
        assert_eq!(
            texts(&place.one(path(name)).unwrap()),
            ["dreißig", "one", "two\nlines"],
            "{name}"
        );
    }
}

#[test]
fn folders_and_patterns_find_files_in_order() {
    let place = Place::new();
    place.write("in/b.txt", "b");
    place.write("in/deep/c.md", "c");
    place.write("in/a.jsonl", jsonl(&["a"]));
    place.write("in/picture.png", [0xff, 0xd8]);
    place.write("in/.hidden.txt", "hidden");
    place.write("in/.git/d.txt", "hidden");
    assert_eq!(texts(&place.one(path("in")).unwrap()), ["a", "b", "c"]);
    let files = |source: SourceSpec| -> Vec<String> {
        let records = place.one(source).unwrap().manifest.source.files;
        let root = place.root().canonicalize().unwrap();
        let name = |record: &FileRecord| {
            record.path.strip_prefix(&root).unwrap().to_string_lossy().into_owned()
        };
        records.iter().map(name).collect()
    };
    assert_eq!(files(path("in")), ["in/a.jsonl", "in/b.txt", "in/deep/c.md"]);
    assert_eq!(files(path("in/**/*.[tm][xd]*")), ["in/b.txt", "in/deep/c.md"]);
    let error = place.refusal(path("in/*"));
    assert!(error.contains("picture.png: unknown file type"), "{error}");
    let many = OneOrMany::Many(vec!["in/deep".to_owned(), "in/b.txt".into(), "in".into()]);
    let many = SourceSpec { path: Some(many), ..SourceSpec::default() };
    assert_eq!(files(many), ["in/deep/c.md", "in/b.txt", "in/a.jsonl"]);
    let only = SourceSpec { format: Some(Format::JSONL.name().to_owned()), ..path("in") };
    assert_eq!(files(only), ["in/a.jsonl"]);
}

#[test]
fn folder_names_with_pattern_characters_are_no_patterns() {
    for name in ["[x]", "*", "q?", "a[!b]*"] {
        let place = Place::new();
        // What the name would match, were it a pattern.
        for decoy in ["x", "qq", "ac"] {
            place.write(&format!("{decoy}/a0.jsonl"), jsonl(&["decoy"]));
        }
        place.write(&format!("{name}/a1.jsonl"), jsonl(&["one"]));
        place.write(&format!("{name}/deep/a2.jsonl"), jsonl(&["two"]));
        place.write(&format!("{name}/tokenizer.json"), cuvee_testkit::tiny_tokenizer_json());
        let base = place.path(name);
        let found = |base: &Path, what: &str| {
            let corpus = place.prepare_from(base, &[domain("d", path(what))]).unwrap();
            texts(&corpus.domains[0])
        };
        assert_eq!(found(&base, "a*.jsonl"), ["one"], "{name}");
        assert_eq!(found(&base, "**/a*.jsonl"), ["one", "two"], "{name}");
        assert_eq!(found(&base, "deep"), ["two"], "{name}");
        // The same written from outside, relative and absolute.
        assert_eq!(found(place.root(), &format!("{name}/a*.jsonl")), ["one"]);
        assert_eq!(found(&base, &base.join("a?.jsonl").to_string_lossy()), ["one"], "{name}");
    }
    // Without a folder of that name it is a pattern, also in the cache's names.
    let place = Place { cache: true, ..Place::new() };
    place.write("x/a.txt", "x");
    let as_pattern = place.one(path("[x]/*.txt")).unwrap();
    assert_eq!(texts(&as_pattern), ["x"]);
    place.write("[x]/a.txt", "literal");
    let as_folder = place.one(path("[x]/*.txt")).unwrap();
    assert_eq!(texts(&as_folder), ["literal"]);
    assert_ne!(as_pattern.dir, as_folder.dir);
}

#[cfg(unix)]
#[test]
fn file_names_need_not_be_utf8() {
    use std::os::unix::ffi::OsStrExt;
    let place = Place::new();
    std::fs::create_dir(place.path("in")).unwrap();
    let name = std::ffi::OsStr::from_bytes(b"caf\xe9.txt");
    if let Err(error) = std::fs::write(place.path("in").join(name), "text") {
        eprintln!("skipped: the file system takes no such name: {error}");
        return;
    }
    for what in ["in", "i*"] {
        let domain = place.one(path(what)).unwrap();
        assert_eq!(texts(&domain), ["text"], "{what}");
        assert!(domain.manifest.source.files[0].path.to_string_lossy().contains("caf\u{fffd}.txt"));
        assert!(place.one(path(what)).unwrap().reused);
    }
}

#[test]
fn empty_paths_are_refused_by_key() {
    let place = Place::new();
    let many = |paths: &[&str]| {
        let paths = paths.iter().map(|path| (*path).to_owned()).collect();
        SourceSpec { path: Some(OneOrMany::Many(paths)), ..SourceSpec::default() }
    };
    place.write("a.txt", "text");
    for (source, found) in [
        (path(""), "an empty string"),
        (many(&["a.txt", ""]), "an empty string"),
        (many(&[]), "an empty list"),
    ] {
        let error = place.one(source).unwrap_err();
        assert!(error.is_usage());
        let error = error.to_string();
        assert!(
            error.contains("`source.path`: ") && error.contains(&format!("found {found}\nhint: ")),
            "{error}"
        );
    }
    let tokenizer = TokenizerSpec { file: Some("".into()), ..TokenizerSpec::default() };
    let place = Place { tokenizer, ..place };
    assert!(place.refusal(path("a.txt")).contains("`tokenizer.file`: "));
}

#[test]
fn values_of_the_wrong_type_are_named() {
    for json in ["{\"path\": 3}", "{\"path\": [\"a\", 3]}", "{\"files\": {}}"] {
        let error = serde_json::from_str::<SourceSpec>(json).unwrap_err().to_string();
        assert!(error.contains("expected a string or a list of strings"), "{error}");
    }
}

#[test]
fn the_format_can_be_named() {
    let place = Place::new();
    place.write("x.py", "print()");
    let source = SourceSpec { format: Some(Format::TXT.name().to_owned()), ..path("*.py") };
    assert_eq!(texts(&place.one(source).unwrap()), ["print()"]);
    let error = place.refusal(path("x.py"));
    assert!(error.contains("x.py: unknown file type") && error.contains(".jsonl.zst"), "{error}");
}

#[test]
fn long_plain_text_is_cut_at_paragraphs_and_nothing_is_lost() {
    let place = Place::new();
    let text = prose(20, 200).join("\n\n");
    place.write("book.txt", format!("\u{feff}{text}"));
    place.write("book.txt.gz", gzip(text.as_bytes()));
    for name in ["book.txt", "book.txt.gz"] {
        let mut pieces = texts(&place.one(path(name)).unwrap());
        assert!(pieces.len() > 3);
        assert!(pieces.iter().all(|piece| piece.len() <= 16 << 10));
        // In the order of the book, which prose numbers.
        pieces.sort_by_key(|piece| text.find(piece.as_str()).unwrap());
        assert_eq!(pieces.concat(), text);
        for piece in &pieces[..pieces.len() - 1] {
            assert!(piece.ends_with("\n\n"));
        }
    }
    let whole = SourceSpec { max_document: Some(1 << 30), ..path("book.txt") };
    assert_eq!(texts(&place.one(whole).unwrap()), [text]);
    let small = SourceSpec { max_document: Some(10), ..path("book.txt") };
    assert!(place.refusal(small).contains("at least 64 bytes, found 10"));
}

#[test]
fn text_columns_may_lie_deep() {
    let place = Place::new();
    place.write(
        "a.jsonl",
        "{\"doc\": {\"body\": \"deep\"}, \"lang\": 7}\n\n{\"doc.body\": \"flat\", \"lang\": \"x\"}\n\
         {\"doc\": \"{\\\"body\\\": \\\"inside\\\"}\", \"lang\": true}\n{\"doc\": {\"body\": null}, \"lang\": 1}\n\
         {\"doc\": null, \"lang\": 1}",
    );
    let source =
        SourceSpec { text: "doc.body".into(), split_by: Some("lang".into()), ..path("a.jsonl") };
    let domain = place.one(source).unwrap();
    assert_eq!(texts(&domain), ["deep", "flat", "inside"]);
    // A null, there or above it, is a document without text; as a split unit it is an
    // error.
    assert_eq!(domain.manifest.counts, Counts { read: 5, empty: 2, ..Counts::default() });
    place.write("b.jsonl", "{\"text\": \"x\", \"meta\": null}\n");
    let error = place.refusal(SourceSpec { split_by: Some("meta.id".into()), ..path("b.jsonl") });
    assert!(
        error.contains("column `meta.id`: expected text or a number, found nothing (null)"),
        "{error}"
    );
}

#[test]
fn parquet_columns_nested_and_in_json_are_read() {
    let place = Place::new();
    let rows: Vec<Row> = vec![
        (Some(b"one"), "{\"set\": \"a\", \"body\": \"eins\"}", Some("en"), 1),
        (None, "{\"set\": \"a\", \"body\": \"zwei\"}", Some("en"), 2),
        (Some("dreißig".as_bytes()), "{\"set\": \"b\", \"body\": \"drei\"}", Some("de"), 3),
    ];
    write_parquet(&place.path("a.parquet"), &rows);
    let domain_of = |source: SourceSpec| place.one(source).unwrap();
    let domain = domain_of(path("a.parquet"));
    assert_eq!(texts(&domain), ["dreißig", "one"]);
    assert_eq!(domain.manifest.counts, Counts { read: 3, empty: 1, ..Counts::default() });
    let inside = SourceSpec { text: "meta.body".into(), ..path("a.parquet") };
    assert_eq!(texts(&domain_of(inside)), ["drei", "eins", "zwei"]);
    // JSON in a column that may be null: such a row is a document without text.
    let rows: Vec<Row> = vec![
        (Some(b"{\"body\": \"eins\"}"), "{}", None, 1),
        (None, "{}", None, 2),
        (Some(b"{\"body\": null}"), "{}", None, 3),
        (Some(b"null"), "{}", None, 4),
    ];
    write_parquet(&place.path("b.parquet"), &rows);
    let domain = domain_of(SourceSpec { text: "text.body".into(), ..path("b.parquet") });
    assert_eq!(texts(&domain), ["eins"]);
    assert_eq!(domain.manifest.counts, Counts { read: 4, empty: 3, ..Counts::default() });
    for (column, names) in [("meta.set", ["d/a", "d/b"]), ("info.language", ["d/de", "d/en"])] {
        let entry = DomainSource {
            domain_by: Some(column.into()),
            ..common::domain("d", path("a.parquet"))
        };
        let corpus = place.prepare(&[entry]).unwrap();
        let found: Vec<&str> = corpus.domains.iter().map(|d| d.name.as_str()).collect();
        assert_eq!(found, names, "{column}");
    }
    let both = SourceSpec {
        text: "info.language".into(),
        split_by: Some("info.stars".into()),
        ..path("a.parquet")
    };
    assert_eq!(texts(&domain_of(both)), ["de", "en", "en"]);
}

#[test]
fn missing_columns_name_those_that_are_there() {
    let place = Place::new();
    place.write(
        "a.jsonl",
        "{\"text\": \"x\"}\n{\"meta\": {\"n\": 1}, \"context\": 2, \"txt\": \"y\"}\n",
    );
    let error = place.refusal(path("a.jsonl"));
    assert!(error.starts_with("domain `d`: "), "{error}");
    assert!(error.contains("a.jsonl, line 2: no column `text`"), "{error}");
    assert!(error.contains("found `txt`, `context`, `meta.n`"), "{error}");
    assert!(error.contains("the nearest is `txt`"), "{error}");
    write_parquet(&place.path("a.parquet"), &[(Some(b"x"), "{\"set\": 1}", None, 1)]);
    let error = place.refusal(SourceSpec { text: "txet".into(), ..path("a.parquet") });
    assert!(error.contains("a.parquet, schema: no column `txet`"), "{error}");
    assert!(error.contains("found `text`, "), "{error}");
    let error = place.refusal(SourceSpec { text: "meta.st".into(), ..path("a.parquet") });
    assert!(error.contains("row 1: no column `meta.st`: expected it, found `meta.set`"), "{error}");
    let split_by = SourceSpec { split_by: Some("metta.n".into()), ..path("a.jsonl") };
    assert!(place.refusal(split_by).contains("no column `metta.n`"));
}

#[test]
fn columns_of_another_type_are_named() {
    let place = Place::new();
    // A whole data set in one object.
    place.write("whole.json", "{\"data\": [{\"text\": \"x\"}]}\n");
    let error = place.refusal(path("whole.json"));
    assert!(error.contains("no column `text`: expected it, found `data`"), "{error}");
    assert!(
        error.contains("hint: where the objects in `data` are the documents, `jq -c '.data[]'"),
        "{error}"
    );
    let error = place.refusal(SourceSpec { text: "data".into(), ..path("whole.json") });
    assert!(error.contains("found a list of objects") && error.contains("jq -c"), "{error}");
    place.write("a.jsonl", "{\"text\": [1], \"n\": null}\n");
    let error = place.refusal(path("a.jsonl"));
    assert!(error.contains("line 1: column `text`: expected text, found a list"), "{error}");
    let error = place.refusal(SourceSpec { split_by: Some("n".into()), ..path("a.jsonl") });
    assert!(error.contains("column `n`: expected text or a number, found nothing"), "{error}");
    write_parquet(&place.path("a.parquet"), &[(Some(b"x"), "{}", None, 1)]);
    write_parquet_list(&place.path("list.parquet"));
    for (column, file, words, hint) in [
        (
            "info",
            "a.parquet",
            "found an object (`info.language`, `info.stars`)",
            "text = \"info.language\"",
        ),
        ("words", "list.parquet", "found a list of texts", "join the parts into one text"),
        ("words.list", "list.parquet", "found a list of texts", "join the parts into one text"),
    ] {
        let error = place.refusal(SourceSpec { text: column.into(), ..path(file) });
        let what = format!("{file}, schema: column `{column}`: expected text, {words}");
        assert!(error.contains(&what) && error.contains(hint), "{error}");
    }
    for (column, words) in [
        ("tags", "column `tags`: expected text, found a list"),
        ("info.stars", "row 1: column `info.stars`: expected text, found a number"),
        ("info.stars.x", "of type INT32, with nothing inside"),
    ] {
        let error = place.refusal(SourceSpec { text: column.into(), ..path("a.parquet") });
        assert!(error.contains(words), "{error}");
    }
    let by = SourceSpec { split_by: Some("info.language".into()), ..path("a.parquet") };
    let error = place.refusal(by);
    assert!(error.contains("column `info.language`: expected text or a number"), "{error}");
    place.write("b.txt", "text");
    let error = place.refusal(SourceSpec { split_by: Some("lang".into()), ..path("b.txt") });
    assert!(error.contains("b.txt has no columns, found \"lang\""), "{error}");
}

#[test]
fn invalid_utf8_is_refused_skipped_or_replaced_and_counted() {
    let place = Place::new();
    let bad = b"{\"text\": \"good\"}\n{\"text\": \"b\xffd\"}\n{\"text\": \"fine\"}\n";
    place.write("a.jsonl", bad);
    place.write("a.jsonl.gz", gzip(bad));
    write_parquet(
        &place.path("a.parquet"),
        &[
            (Some(b"good"), "{}", None, 1),
            (Some(b"b\xffd"), "{}", None, 1),
            (Some(b"fine"), "{}", None, 1),
        ],
    );
    place.write("a/1.txt", "good");
    place.write("a/2.txt", b"b\xffd");
    place.write("a/3.txt", "fine");
    for (name, words) in [
        // 17 bytes in the first line, 11 before the invalid one.
        ("a.jsonl", "a.jsonl, line 2: expected UTF-8 text, found an invalid byte at offset 28\n"),
        (
            "a.jsonl.gz",
            "line 2: expected UTF-8 text, found an invalid byte at offset 28 of the decompressed text",
        ),
        (
            "a.parquet",
            "row 2, column `text`: expected UTF-8 text, found an invalid byte at offset 1 of the value",
        ),
        ("a", "2.txt, plain text: expected UTF-8 text, found an invalid byte at offset 1"),
    ] {
        let error = place.refusal(path(name));
        assert!(error.contains(words), "{error}");
        assert!(error.contains("on_invalid = \"skip\""), "{error}");
        let skip = SourceSpec { on_invalid: Some(OnInvalid::Skip), ..path(name) };
        let domain = place.one(skip).unwrap();
        assert_eq!(texts(&domain), ["fine", "good"], "{name}");
        let counts = Counts {
            read: 3,
            invalid_skipped: 1,
            invalid_reasons: InvalidCounts::of(Invalid::NotUtf8, 1),
            ..Counts::default()
        };
        assert_eq!(domain.manifest.counts, counts, "{name}");
        let replace = SourceSpec { on_invalid: Some(OnInvalid::Replace), ..path(name) };
        let domain = place.one(replace).unwrap();
        assert_eq!(texts(&domain), ["b\u{fffd}d", "fine", "good"], "{name}");
        let counts = Counts { read: 3, invalid_replaced: 1, ..Counts::default() };
        assert_eq!(domain.manifest.counts, counts, "{name}");
    }
}

#[test]
fn lines_that_are_no_json_are_named() {
    let place = Place::new();
    place.write("a.jsonl", "{\"text\": \"x\"}\n{\"text\": \"y\"\n");
    let error = place.refusal(path("a.jsonl"));
    let words =
        "a.jsonl:2: expected one JSON object a line, found an object that goes on in the next";
    assert!(error.contains(words), "{error}");
    let skip = SourceSpec { on_invalid: Some(OnInvalid::Skip), ..path("a.jsonl") };
    let domain = place.one(skip).unwrap();
    assert_eq!((texts(&domain), domain.manifest.counts.invalid_skipped), (vec!["x".into()], 1));
    place.write("b.json", "[{\"text\": \"x\"}]");
    let error = place.refusal(path("b.json"));
    assert!(error.contains("b.json:1: ") && error.contains("a JSON array"), "{error}");
}

#[test]
fn damaged_archives_are_named() {
    let place = Place::new();
    let lines = jsonl(&prose(21, 200).iter().map(String::as_str).collect::<Vec<_>>());
    let (gz, zst) = (gzip(lines.as_bytes()), zstd(lines.as_bytes()));
    place.write("cut.jsonl.gz", &gz[..gz.len() / 2]);
    place.write("cut.jsonl.zst", &zst[..zst.len() / 2]);
    place.write("odd.jsonl.gz", &lines);
    place.write("odd.jsonl.zst", &lines);
    place.write("odd.parquet", &lines);
    write_parquet(&place.path("cut.parquet"), &[(Some(b"x"), "{}", None, 1)]);
    let whole = std::fs::read(place.path("cut.parquet")).unwrap();
    place.write("cut.parquet", &whole[..whole.len() - 20]);
    for (name, words) in [
        ("cut.jsonl.gz", "gzip does not decode to its end: "),
        ("cut.jsonl.zst", "zstd does not decode to its end: "),
        ("odd.jsonl.gz", "expected gzip data, as its name says, found plain text"),
        ("odd.jsonl.zst", "expected zstd data, as its name says, found plain text"),
        ("odd.parquet", "expected a Parquet file, which begins with PAR1, found JSON"),
        ("cut.parquet", "parquet does not decode to its end: "),
    ] {
        let error = place.refusal(path(name));
        assert!(error.contains(words) && error.contains(name), "{error}");
    }
}

#[test]
fn nothing_found_and_nothing_in_it_are_told_apart() {
    let place = Place::new();
    for pattern in ["nowhere.jsonl", "*.jsonl", "empty"] {
        std::fs::create_dir_all(place.path("empty")).unwrap();
        let error = place.refusal(path(pattern));
        assert!(error.contains(&format!("no file for `{pattern}`")), "{error}");
        assert!(error.contains(&*place.root().to_string_lossy()), "{error}");
    }
    let error = place.refusal(path("[a"));
    assert!(error.contains("expected a path or a pattern"), "{error}");
    place.write("a.jsonl", "\n\n");
    let error = place.refusal(path("a.jsonl"));
    assert!(
        error.contains("domain `d` is empty") && error.contains("found 0 in 1 file "),
        "{error}"
    );
    place.write("a.jsonl", jsonl(&[" ", ""]));
    let error = place.refusal(path("a.jsonl"));
    assert!(error.contains("found 2 in 1 file (2 without text, 0 invalid)"), "{error}");
    // The same while a tokenizer is sampled.
    let mut place = place;
    place.tokenizer.file = None;
    place.tokenizer.train = Some(TrainTokenizerSpec { vocab_size: 300, sample_bytes: 1000 });
    assert!(place.refusal(path("a.jsonl")).contains("domain `d` is empty"));
}

#[test]
fn contradictory_specs_are_refused() {
    let place = Place::new();
    place.write("a.txt", "text");
    let error = place.refusal(SourceSpec::default());
    assert!(error.contains("exactly one of `path`, `hub` and `cargo`, found none"), "{error}");
    let both = SourceSpec { cargo: Some(CargoKind::C), ..path("a.txt") };
    assert!(place.refusal(both).contains("found path and cargo"));
    let lonely = SourceSpec { revision: Some("main".into()), ..path("a.txt") };
    assert!(place.refusal(lonely).contains("`source.revision`: expected it beside `hub` only"));
    let twice = [domain("d", path("a.txt")), domain("d", path("a.txt"))];
    let error = place.prepare(&twice).unwrap_err().to_string();
    assert!(error.contains("two domains are called `d`"), "{error}");
    let train = TrainTokenizerSpec { vocab_size: 300, sample_bytes: 10 };
    for (tokenizer, words) in [
        (TokenizerSpec::default(), "exactly one of `file`, `hub` and `train`, found none"),
        (
            TokenizerSpec { train: Some(train.clone()), ..place.tokenizer.clone() },
            "found file and train",
        ),
        (
            TokenizerSpec { revision: Some("v1".into()), ..place.tokenizer.clone() },
            "it beside `hub` only",
        ),
        (
            TokenizerSpec {
                train: Some(train),
                end_of_text: Some("</s>".into()),
                ..TokenizerSpec::default()
            },
            "expected \"<|endoftext|>\"",
        ),
    ] {
        let place = Place { tokenizer, ..Place::new() };
        place.write("a.txt", "text");
        assert!(place.refusal(path("a.txt")).contains(words));
    }
    let place = Place { splits: SplitSpec { tune: 0.5, valid: 0.6 }, ..Place::new() };
    assert!(place.refusal(path("a.txt")).contains("tune + valid at most 1"));
}

#[cfg(not(feature = "hub"))]
#[test]
fn without_the_hub_its_names_are_refused() {
    let place = Place::new();
    place.write("a.txt", "text");
    let error = place.refusal(SourceSpec { hub: Some("a/b".into()), ..SourceSpec::default() });
    assert!(error.contains("not in this build") && error.contains("download"), "{error}");
    let tokenizer = TokenizerSpec { hub: Some("a/b".into()), ..TokenizerSpec::default() };
    let place = Place { tokenizer, ..place };
    assert!(place.refusal(path("a.txt")).contains("not in this build"));
}

#[test]
fn tokenized_sources_must_fit_the_tokenizer() {
    let mut place = Place::new();
    write_texts(&place.path("a.jsonl"), &prose(22, 20));
    let dir = place.one(path("a.jsonl")).unwrap().dir;
    let shards = dir.to_string_lossy().into_owned();
    let again = |place: &Place, what: &str| {
        place.prepare(&[domain("again", path(what))]).unwrap_err().to_string()
    };
    // Another tokenizer, by the shard.json beside the shards.
    let other = cuvee_testkit::tiny_tokenizer_json().replace("\"the\":257", "\"the\":300");
    place.write("other.json", other);
    place.tokenizer.file = Some("other.json".into());
    let error = again(&place, &shards);
    assert!(error.contains("shard.json: expected shards of tokenizer"), "{error}");
    assert!(error.contains("\nhint: "), "{error}");
    // Without one, by the ids: 256 bytes and end-of-text are a smaller vocabulary.
    for name in ["train.bin", "train.idx"] {
        std::fs::create_dir_all(place.path("bare")).unwrap();
        std::fs::copy(dir.join(name), place.path(&format!("bare/{name}"))).unwrap();
    }
    let mut small: serde_json::Value =
        serde_json::from_str(&cuvee_testkit::tiny_tokenizer_json()).unwrap();
    small["model"]["merges"] = serde_json::json!([]);
    small["model"]["vocab"].as_object_mut().unwrap().retain(|_, id| id.as_u64() < Some(256));
    small["added_tokens"][0]["id"] = 256.into();
    place.write("small.json", small.to_string());
    place.tokenizer.file = Some("small.json".into());
    let error = again(&place, "bare");
    assert!(error.contains("expected token ids below 257, found 2"), "{error}");
    // Truncated.
    let idx = std::fs::read(place.path("bare/train.idx")).unwrap();
    place.write("bare/train.idx", &idx[..idx.len() - 1]);
    let error = again(&place, "bare/train");
    let words =
        format!("expected {} bytes, found {}: the file is truncated", idx.len(), idx.len() - 1);
    assert!(error.contains(&words) && error.contains("cuvee prepare"), "{error}");
    // Not with a tokenizer that is still to be trained.
    place.tokenizer.file = None;
    place.tokenizer.train = Some(TrainTokenizerSpec { vocab_size: 300, sample_bytes: 1000 });
    let error = again(&place, &shards);
    assert!(error.contains("found one to be trained"), "{error}");
    // And never onto themselves.
    place.tokenizer = Place::new().tokenizer;
    let error = place.one(SourceSpec { license: Some("x".into()), ..path(&shards) });
    let error = error.unwrap_err().to_string();
    assert!(error.contains("is a source, and it lies in the folder the shards go to"), "{error}");
}

#[test]
fn cargos_sources_are_a_corpus() {
    let place = Place::new();
    let docs = SourceSpec { cargo: Some(CargoKind::C), ..SourceSpec::default() };
    let entry = domain("c", docs.clone());
    let root = cuvee_testkit::workspace_root();
    let tokenizer =
        TokenizerSpec { file: Some(place.path("tokenizer.json")), ..TokenizerSpec::default() };
    let request = |domains| Prepare {
        domains,
        tokenizer: &tokenizer,
        model: None,
        splits: &place.splits,
        base: &root,
        store: place.store(),
        options: PrepareOptions::default(),
        interrupted: &NEVER,
    };
    let entries = [entry];
    // Whoever runs this test has just built the workspace, zstd's C among it.
    let corpus = prepare(&request(&entries), &Silent).unwrap();
    let manifest = &corpus.domains[0].manifest;
    assert!(
        manifest
            .source
            .files
            .iter()
            .any(|record| record.path.to_string_lossy().starts_with("zstd-sys-"))
    );
    assert!(manifest.license.as_deref().is_some_and(|license| license.contains("MIT")));
    assert!(manifest.counts.read > 100);
    // By crate: the package that most of it is from stands in one split.
    let by_license = DomainSource { domain_by: Some("license".into()), ..domain("l", docs) };
    let entries = [by_license];
    let corpus = prepare(&request(&entries), &Silent).unwrap();
    assert!(corpus.domains.iter().all(|domain| domain.name.starts_with("l/")));
    assert!(prepare(&request(&entries), &Silent).unwrap().domains[0].reused);
}

#[test]
fn a_line_without_end_is_refused_after_what_came_before_it() {
    let place = Place::new();
    let mut text = b"{\"text\": \"fine\"}\n".to_vec();
    text.resize(text.len() + (64 << 20) + 1, b'x');
    place.write("a.jsonl", text);
    let error = place.refusal(path("a.jsonl"));
    assert!(
        error.contains("a.jsonl:2: ") && error.contains("a line of more than 67108864 bytes"),
        "{error}"
    );
    assert!(place.path("shards/d/.parts/1-of-1/part.json").exists());
}
