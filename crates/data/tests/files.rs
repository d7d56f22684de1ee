//! What `prepare` promises of the files it finds: each is read once, what is left out is said, and
//! names that data decides are fit to be shown.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use common::{Listen, Place, domain, path, texts};
use cuvee_data::*;
use parquet::data_type::*;
use parquet::file::writer::SerializedFileWriter;
use serde_json::json;

fn many(paths: &[&str]) -> SourceSpec {
    let paths = paths.iter().map(|path| (*path).to_owned()).collect();
    SourceSpec { path: Some(OneOrMany::Many(paths)), ..SourceSpec::default() }
}

fn format(format: Format, source: SourceSpec) -> SourceSpec {
    SourceSpec { format: Some(format.name().to_owned()), ..source }
}

/// The texts of a source, and the notes about it.
fn read(place: &Place, source: SourceSpec) -> (Vec<String>, String) {
    let listen = Listen::default();
    let domains = [domain("d", source)];
    let corpus = place.prepare_with(&domains, &AtomicBool::new(false), &listen).unwrap();
    let said = listen.said();
    let notes = said.split_last().unwrap().1.join("\n");
    std::fs::remove_dir_all(place.path("shards")).unwrap();
    (texts(&corpus.domains[0]), notes)
}

#[cfg(unix)]
#[test]
fn a_file_is_read_once_whatever_its_names() {
    use std::os::unix::fs::symlink;
    let place = Place::new();
    place.write("d/a.txt", "one");
    place.write("e/b.txt", "two");
    symlink(place.path("d/a.txt"), place.path("d/link.txt")).unwrap();
    symlink(place.path("d"), place.path("e/all")).unwrap();
    std::fs::hard_link(place.path("d/a.txt"), place.path("e/hard.txt")).unwrap();
    let absolute = place.path("d/a.txt").to_string_lossy().into_owned();
    for (paths, is_said) in [
        (vec!["d/a.txt", "d/a.txt"], false),
        (vec!["d/*.txt", "d/a*"], true),
        (vec!["d/a.txt", "./d/a.txt"], false),
        (vec!["d/a.txt", "d/../d/a.txt"], true),
        (vec!["d/a.txt", &absolute], false),
        (vec!["d/a.txt", "e/hard.txt"], true),
        (vec!["d"], true),
    ] {
        let (found, notes) = read(&place, many(&paths));
        assert_eq!(found, ["one"], "{paths:?}");
        assert_eq!(notes.contains("are one file, which is read once"), is_said, "{notes}");
    }
    for paths in [vec!["d", "e"], vec!["e"], vec!["e/**/*.txt"]] {
        assert_eq!(read(&place, many(&paths)).0, ["one", "two"], "{paths:?}");
    }
    // Both names are said, and a copy is another file.
    let (_, notes) = read(&place, many(&["d/a.txt", "e/hard.txt"]));
    assert!(notes.contains("d/a.txt and ") && notes.contains("e/hard.txt are one"), "{notes}");
    place.write("e/copy.txt", "one");
    assert_eq!(read(&place, many(&["d/a.txt", "e/copy.txt"])).0, ["one", "one"]);
}

#[cfg(unix)]
#[test]
fn shards_are_told_apart_by_their_ids_and_not_by_their_indexes() {
    let place = Place { splits: SplitSpec { tune: 0.0, valid: 0.0 }, ..Place::new() };
    // Documents of the same lengths have the same index: it may be one file.
    place.write("n.bin", [70u8, 0, 71, 0, 10, 1]);
    place.write("m.bin", [72u8, 0, 73, 0, 10, 1]);
    for name in ["n", "m"] {
        let request = Convert {
            input: &place.path(&format!("{name}.bin")),
            input_as: TokensAs { format: Some(Format::NANOGPT), token_type: None },
            split: None,
            output: &place.path(&format!("s/{name}")),
            to: Format::MEGATRON,
            end_of_text: Some(266),
            interrupted: &AtomicBool::new(false),
        };
        convert(&request, &Silent).unwrap();
    }
    std::fs::remove_file(place.path("s/m.idx")).unwrap();
    std::fs::hard_link(place.path("s/n.idx"), place.path("s/m.idx")).unwrap();
    assert_eq!(read(&place, path("s")).0.len(), 2);
    for ending in ["idx", "bin"] {
        let (from, to) = (format!("s/n.{ending}"), format!("s/o.{ending}"));
        std::os::unix::fs::symlink(place.path(&from), place.path(&to)).unwrap();
    }
    assert_eq!(read(&place, path("s")).0.len(), 2);
}

#[cfg(unix)]
#[test]
fn links_that_lead_nowhere_or_in_circles_are_named() {
    use std::os::unix::fs::symlink;
    let place = Place::new();
    place.write("d/a.txt", "one");
    symlink("nowhere.txt", place.path("d/dangling.txt")).unwrap();
    for what in ["d", "d/*.txt", "d/dangling.txt"] {
        let error = place.refusal(path(what));
        let words = "d/dangling.txt: expected a file or a folder, found a link to nowhere.txt";
        assert!(error.contains(words), "{error}");
        assert!(
            error.ends_with("\nhint: remove the link, or put a file where it leads"),
            "{error}"
        );
    }
    std::fs::remove_file(place.path("d/dangling.txt")).unwrap();
    symlink("self.txt", place.path("d/self.txt")).unwrap();
    let error = place.refusal(path("d"));
    assert!(error.contains("d/self.txt: ") && error.contains("back to itself"), "{error}");
    std::fs::remove_file(place.path("d/self.txt")).unwrap();
    // What does not promise documents may lead nowhere.
    symlink("nowhere", place.path("d/socket")).unwrap();
    symlink("..", place.path("d/up")).unwrap();
    std::fs::remove_file(place.path("tokenizer.json")).unwrap();
    place.write("elsewhere/tokenizer.json", cuvee_testkit::tiny_tokenizer_json());
    let tokenizer =
        TokenizerSpec { file: Some("elsewhere/tokenizer.json".into()), ..TokenizerSpec::default() };
    let place = Place { tokenizer, ..place };
    let (found, notes) = read(&place, format(Format::TXT, path("d")));
    assert_eq!(found, ["one"]);
    assert!(notes.contains("d/socket is a link to nowhere, where nothing is"), "{notes}");
    assert!(notes.contains("d/up/d leads to a folder that had been searched"), "{notes}");
}

#[cfg(unix)]
#[test]
fn what_is_no_file_is_never_waited_for() {
    let place = Place::new();
    place.write("d/a.txt", "one");
    let made = std::process::Command::new("mkfifo").arg(place.path("d/pipe.txt")).status();
    if !made.is_ok_and(|status| status.success()) {
        eprintln!("skipped: no pipe can be made");
        return;
    }
    for what in ["d/*.txt", "d/pipe.txt"] {
        let error = place.refusal(path(what));
        assert!(error.contains("d/pipe.txt: expected a file or a folder, found a pipe"), "{error}");
        assert!(error.ends_with("write what comes out of it to a file, and name that"), "{error}");
    }
    let (found, notes) = read(&place, path("d"));
    assert_eq!(found, ["one"]);
    assert!(notes.contains("pipe.txt is a pipe, and is left out"), "{notes}");
}

#[test]
fn a_folder_says_what_it_leaves_out() {
    let place = Place::new();
    place.write("d/One.TXT", "one");
    place.write("d/two.txt", "two");
    for name in ["a.txt.zstd", "b.txt.xz", "c.txt.bz2", "d.png", "e.png", "f"] {
        place.write(&format!("d/{name}"), "?");
    }
    for name in [".hidden.txt", ".git/x.txt", "sub/._a.txt"] {
        place.write(&format!("d/{name}"), "hidden");
    }
    let (found, notes) = read(&place, path("d"));
    assert_eq!(found, ["one", "two"]);
    let words = "d: `d`: 6 files are left out for their endings: ";
    let counts = ["1 of .bz2, 1 of .xz, 1 of .zstd, 2 of .png, 1 of none", "only .gz and .zst"];
    assert!(notes.contains(words) && counts.iter().all(|c| notes.contains(c)), "{notes}");
    for hidden in ["`.hidden.txt`", "`.git`", "`._a.txt`"] {
        assert!(notes.contains(hidden), "{notes}");
    }
    // Nothing is said where nothing is left out, nor of what belongs to a file that is read.
    assert_eq!(read(&place, path("d/*.txt")).1, "");
    // Where nothing is left, the error says so.
    std::fs::remove_file(place.path("d/One.TXT")).unwrap();
    std::fs::remove_file(place.path("d/two.txt")).unwrap();
    let error = place.refusal(path("d"));
    assert!(error.contains("no file for `d`") && error.contains("1 of .xz"), "{error}");
    // A file that was named by itself: each ending once, and what the name should be.
    let error = place.refusal(path("d/a.txt.zstd"));
    assert!(error.contains("hint: let its name end in .zst;"), "{error}");
    assert_eq!(error.matches(" .bin,").count(), 1, "{error}");
}

#[test]
fn what_tells_of_the_data_is_not_read_as_data() {
    let place = Place::new();
    place.write("repo/data/a.jsonl", json!({"text": "one"}).to_string());
    place.write("repo/data/b.txt", "two");
    for name in ["README.md", "LICENSE.txt", "requirements.txt", "dataset_infos.json"] {
        place.write(&format!("repo/{name}"), "{\"about\": 1}");
    }
    for what in ["repo", "repo/", "repo/*", "repo/**/*"] {
        let (found, notes) = read(&place, path(what));
        assert_eq!(found, ["one", "two"], "{what}");
        assert!(notes.contains("`README.md`") && notes.contains("to read it as text"), "{notes}");
        assert!(notes.contains("several formats are read: 1 jsonl, 1 txt"), "{notes}");
    }
    // Named, or by a pattern that says what it wants, it is read.
    assert_eq!(read(&place, path("repo/README.md")).0.len(), 1);
    assert_eq!(read(&place, path("repo/*.md")).0.len(), 1);
    let error = place.refusal(path("repo/R*.mdx"));
    assert!(error.contains("no file for"), "{error}");
}

#[test]
fn held_out_files_do_not_quietly_become_training_data() {
    let place = Place::new();
    let ids = |id: u8| [id, 0, 10, 1];
    place.write("nano/train.bin", ids(70));
    place.write("nano/val.bin", ids(71));
    let nano = |what: &str| format(Format::NANOGPT, path(what));
    for what in ["nano", "nano/*"] {
        let (found, notes) = read(&place, nano(what));
        assert_eq!(found.len(), 1, "{what}");
        assert!(notes.contains("`val.bin`") && notes.contains("beside `train.bin`"), "{notes}");
    }
    // A pattern that says what it wants is taken at its word, loudly.
    let (found, notes) = read(&place, nano("nano/*.bin"));
    assert_eq!(found.len(), 2);
    assert!(notes.contains("takes files as data for training") && notes.contains("`val.bin`"));
    let (found, notes) =
        read(&place, format(Format::NANOGPT, many(&["nano/train.bin", "nano/val.bin"])));
    assert_eq!((found.len(), notes.as_str()), (2, ""));
    // Folders say so too; where nothing is called train, nothing is held out.
    place.write("split/train/a.txt", "one");
    place.write("split/test/b.txt", "two");
    place.write("tests/test-1.txt", "three");
    assert_eq!(read(&place, path("split")).0, ["one"]);
    assert_eq!(read(&place, path("split/test")).0, ["two"]);
    assert_eq!(read(&place, path("tests")).0, ["three"]);
}

#[test]
fn values_that_name_domains_are_fit_to_be_shown() {
    let place = Place::new();
    let values = ["\u{1b}[31mred", "a\nb", "\u{202e}abc", "plain \\n", "日本"];
    let lines: String = values
        .iter()
        .map(|value| json!({"text": format!("text of {value:?}"), "of": value}).to_string() + "\n")
        .collect();
    place.write("a.jsonl", lines);
    let by = |column: &str, name: &str| DomainSource {
        domain_by: Some(column.to_owned()),
        ..domain("d", path(name))
    };
    let corpus = place.prepare(&[by("of", "a.jsonl")]).unwrap();
    let mut names: Vec<&str> = corpus.domains.iter().map(|domain| domain.name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["d/\\u{1b}[31mred", "d/\\u{202e}abc", "d/a\\nb", "d/plain \\n", "d/日本"]);
    for domain in &corpus.domains {
        let folder = domain.dir.file_name().unwrap().to_str().unwrap();
        assert!(folder.is_ascii() && !folder.contains(char::is_control), "{folder}");
        assert_eq!(Domain::open(&domain.dir).unwrap().name, domain.name);
    }
    // Long values keep their difference.
    let long = ["x".repeat(10_000) + "1", "x".repeat(10_000) + "2"];
    let lines = long.map(|value| json!({"text": value, "of": value}).to_string()).join("\n");
    place.write("b.jsonl", lines);
    let corpus = place.prepare(&[by("of", "b.jsonl")]).unwrap();
    assert!(corpus.domains.iter().all(|domain| domain.name.len() < 200));
    // An error quotes columns without what acts on a terminal.
    place.write("c.jsonl", json!({"te\u{1b}[2Jxt": "one"}).to_string());
    let error = place.refusal(path("c.jsonl"));
    assert!(error.contains("te\\u{1b}[2Jxt") && !error.contains('\u{1b}'), "{error}");
}

#[test]
fn parquets_dates_and_numbers_name_domains_as_people_write_them() {
    let place = Place::new();
    let schema = "message m {
        required binary text (UTF8);
        required int32 day (DATE);
        required int64 time (TIMESTAMP(MILLIS, true));
        required int32 price (DECIMAL(9, 2));
        required int32 unsigned (INTEGER(32, false));
        required float ratio;
        required boolean flag;
        required int96 old;
    }";
    let schema = parquet::schema::parser::parse_message_type(schema).unwrap();
    let file = std::fs::File::create(place.path("a.parquet")).unwrap();
    let mut writer = SerializedFileWriter::new(file, Arc::new(schema), Default::default()).unwrap();
    let mut group = writer.next_row_group().unwrap();
    macro_rules! column {
        ($kind:ty, $value:expr) => {
            let mut column = group.next_column().unwrap().unwrap();
            column.typed::<$kind>().write_batch(&[$value], None, None).unwrap();
            column.close().unwrap();
        };
    }
    column!(ByteArrayType, ByteArray::from("text"));
    column!(Int32Type, 19_782);
    column!(Int64Type, 1_709_209_800_000);
    column!(Int32Type, -1_250);
    column!(Int32Type, -1);
    column!(FloatType, 0.1);
    column!(BoolType, true);
    let mut old = Int96::new();
    // Half past noon of Julian day 2,460,370, which is 29 February 2024.
    let nanoseconds = 45_000_000_000_000u64;
    old.set_data(nanoseconds as u32, (nanoseconds >> 32) as u32, 2_460_370);
    column!(Int96Type, old);
    group.close().unwrap();
    writer.close().unwrap();
    for (column, name) in [
        ("day", "2024-02-29"),
        ("time", "2024-02-29T12:30:00Z"),
        ("price", "-12.50"),
        ("unsigned", "4294967295"),
        ("ratio", "0.1"),
        ("flag", "true"),
        ("old", "2024-02-29T12:30:00"),
    ] {
        let by =
            DomainSource { domain_by: Some(column.to_owned()), ..domain("d", path("a.parquet")) };
        let corpus = place.prepare(&[by]).unwrap();
        assert_eq!(corpus.domains[0].name, format!("d/{name}"), "{column}");
    }
    // As text, none of them is taken.
    let error = place.refusal(SourceSpec { text: "day".into(), ..path("a.parquet") });
    assert!(error.contains("expected text, found a date (2024-02-29)"), "{error}");
}
