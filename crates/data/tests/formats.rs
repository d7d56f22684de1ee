//! Tokenized files of other programs: golden bytes in, documents out, and every way between the
//! formats that are written.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::path::Path;
use std::sync::atomic::AtomicBool;

use common::{Place, path};
use cuvee_data::*;
use proptest::prelude::*;

/// End-of-text of the tiny tokenizer.
const END: u32 = 266;
/// Documents of three tokens, one, and two, each ended: 5 6 E, E, 7 E.
const U16: &[u8] = &[5, 0, 6, 0, 10, 1, 10, 1, 7, 0, 10, 1];
const U32: &[u8] = &[5, 0, 0, 0, 6, 0, 0, 0, 10, 1, 0, 0, 10, 1, 0, 0, 7, 0, 0, 0, 10, 1, 0, 0];

/// llm.c's header.
fn llmc(magic: i32, version: i32, tokens: i32) -> Vec<u8> {
    let mut bytes = vec![0; 1024];
    for (at, number) in [magic, version, tokens].into_iter().enumerate() {
        bytes[4 * at..4 * at + 4].copy_from_slice(&number.to_le_bytes());
    }
    bytes
}

/// `numpy.save("x.npy", numpy.array([5, 6, 266, 266, 7, 266], dtype=descr))`, whose header NumPy
/// pads to 64 bytes.
fn numpy(descr: &str, data: &[u8]) -> Vec<u8> {
    let mut header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': (6,), }}");
    while (10 + header.len() + 1) % 64 != 0 {
        header.push(' ');
    }
    header.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend_from_slice(&(header.len() as u16).to_le_bytes());
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend_from_slice(data);
    bytes
}

/// The golden files of each format, with what must be said about them.
fn write_golden(
    place: &Place,
) -> Vec<(&'static str, Option<Format>, Option<TokenType>, TokenType)> {
    use TokenType as T;
    place.write("a/nano.bin", U16);
    place.write("a/nano32.bin", U32);
    place.write("a/gpt2.bin", [llmc(20_240_520, 1, 6), U16.to_vec()].concat());
    place.write("a/llama3.bin", [llmc(20_240_801, 7, 6), U32.to_vec()].concat());
    // Made with datatrove 0.10.1 (the documents of U16, [5, 6, 266], [266], [7, 266]; token_size 2
    // and 4): f = datatrove.pipeline.tokens.tokenizer.TokenizedFile(
    //       ".", "d.ds", tokenizer_name_or_path="org|gpt2", save_final_metadata=True, token_size=2)
    //   for document in documents: f.write(document, None)
    //   f.close()
    let ends: Vec<u8> = [3u64, 4, 6].iter().flat_map(|end| end.to_le_bytes()).collect();
    for (name, data, size) in [("a/two.ds", U16, 2), ("a/four.ds", U32, 4)] {
        place.write(name, data);
        place.write(&format!("{name}.index"), &ends);
        place.write(&format!("{name}.metadata"), format!("org|gpt2|{size}\n6\n6.00 T"));
    }
    place.write("a/olmo16.npy", U16);
    place.write("a/olmo32.npy", U32);
    place.write("a/numpy16.npy", numpy("<u2", U16));
    place.write("a/numpy32.npy", numpy("<i4", U32));
    vec![
        ("a/nano.bin", Some(Format::NANOGPT), None, T::U16),
        ("a/nano32.bin", Some(Format::NANOGPT), Some(T::U32), T::U32),
        ("a/gpt2.bin", None, None, T::U16),
        ("a/llama3.bin", None, None, T::U32),
        ("a/two.ds", None, None, T::U16),
        ("a/four.ds", None, None, T::U32),
        ("a/olmo16.npy", None, Some(T::U16), T::U16),
        ("a/olmo32.npy", None, Some(T::U32), T::U32),
        ("a/numpy16.npy", None, None, T::U16),
        ("a/numpy32.npy", None, Some(T::I32), T::I32),
    ]
}

/// Everything in one split, so that documents come out as they went in.
fn unsplit() -> Place {
    Place { splits: SplitSpec { tune: 0.0, valid: 0.0 }, ..Place::new() }
}

fn documents(shard: &Shard) -> Vec<Vec<u32>> {
    (0..shard.documents()).map(|i| shard.document(i).unwrap()).collect()
}

#[test]
fn golden_files_of_every_format_become_their_documents() {
    let place = unsplit();
    for (name, format, token_type, stored) in write_golden(&place) {
        let named = format.map(|format| format.name().to_owned());
        let source = SourceSpec { format: named, token_type, ..path(name) };
        let domain = place.one(source).unwrap();
        assert_eq!(
            documents(domain.shard(Split::Train)),
            [vec![5, 6, END], vec![7, END]],
            "{name}"
        );
        let counts = domain.manifest.counts;
        assert_eq!(
            (counts.read, counts.empty),
            (3, 1),
            "{name}: the document in the middle has no text"
        );

        match inspect_as(&place.path(name), TokensAs { format, token_type }).unwrap() {
            Inspection::Tokens {
                token_type,
                tokens,
                documents,
                longest,
                max_id,
                tokenizer,
                format,
                ..
            } => {
                assert_eq!((token_type, tokens, max_id), (stored, 6, Some(END)), "{name}");
                let counted = format == Format::DATATROVE;
                assert_eq!(documents, counted.then_some(3), "{name}");
                assert_eq!(longest, counted.then_some(3), "{name}");
                assert_eq!(tokenizer.as_deref(), counted.then_some("org|gpt2"), "{name}");
            }
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[test]
fn a_shard_made_by_megatron_core_is_read_and_written_to_the_byte() {
    // Made with megatron-core 0.16.1: b =
    // megatron.core.datasets.indexed_dataset.IndexedDatasetBuilder("m.bin", dtype=numpy.uint16)
    // b.add_item(torch.tensor([5, 6])); b.add_item(torch.tensor([7, 2])); b.end_document()
    // b.add_document(torch.tensor([8, 2]), [2]) b.finalize("m.idx")
    const BIN: &[u8] = &[5, 0, 6, 0, 7, 0, 2, 0, 8, 0, 2, 0];
    const IDX: &[u8] = &[
        77, 77, 73, 68, 73, 68, 88, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 8, 3, 0, 0, 0, 0, 0, 0, 0, 3, 0,
        0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0,
        0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 3, 0,
        0, 0, 0, 0, 0, 0,
    ];
    let place = unsplit();
    place.write("m.bin", BIN);
    place.write("m.idx", IDX);
    let shard = Shard::open(&place.path("m")).unwrap();
    assert_eq!(documents(&shard), [vec![5, 6, 7, 2], vec![8, 2]], "a document of two sequences");
    // Through nanoGPT's form its documents are found again by their end, then of one sequence each:
    // the same .bin, and the .idx that megatron-core writes for add_document([5, 6, 7, 2], [4]) and
    // add_document([8, 2], [2]).
    run(&place, "m", "n.bin", Format::NANOGPT, None, 2).unwrap();
    assert_eq!(std::fs::read(place.path("n.bin")).unwrap(), BIN);
    run(&place, "n.bin", "again", Format::MEGATRON, Some(Format::NANOGPT), 2).unwrap();
    assert_eq!(std::fs::read(place.path("again.bin")).unwrap(), BIN);
    let one_each =
        [&IDX[..18], &[2, 0, 0, 0, 0, 0, 0, 0], &IDX[26..34], &[4, 0, 0, 0, 2, 0, 0, 0]].concat();
    let offsets = [0u64, 8, 0, 1, 2].iter().flat_map(|n| n.to_le_bytes());
    let expected: Vec<u8> = one_each.into_iter().chain(offsets).collect();
    assert_eq!(std::fs::read(place.path("again.idx")).unwrap(), expected);
}

fn run(
    place: &Place,
    from: &str,
    to: &str,
    format: Format,
    input_as: Option<Format>,
    end_of_text: impl Into<Option<u32>>,
) -> Result<Vec<Converted>> {
    let request = Convert {
        input: &place.path(from),
        input_as: TokensAs { format: input_as, token_type: None },
        split: None,
        output: &place.path(to),
        to: format,
        end_of_text: end_of_text.into(),
        interrupted: &AtomicBool::new(false),
    };
    convert(&request, &Silent)
}

const WRITTEN: [(Format, &str); 4] = [
    (Format::MEGATRON, "x.bin"),
    (Format::NANOGPT, "x.bin"),
    (Format::LLMC, "x.bin"),
    (Format::DATATROVE, "x.ds"),
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn tokens_and_documents_survive_every_way_between_formats(
        texts in prop::collection::vec(prop::collection::vec(0..260u32, 0..40), 1..12),
    ) {
        let place = unsplit();
        let stream: Vec<u32> = texts.iter().flat_map(|text| text.iter().copied().chain([END])).collect();
        let bytes: Vec<u8> = stream.iter().flat_map(|id| (*id as u16).to_le_bytes()).collect();
        place.write("start.bin", &bytes);
        for (first, name) in WRITTEN {
            let dir = format!("1-{}", first.name());
            run(&place, "start.bin", &format!("{dir}/{name}"), first, Some(Format::NANOGPT), END).unwrap();
        }
        for (first, name) in WRITTEN {
            let dir = format!("1-{}", first.name());
            for (second, other) in WRITTEN {
                let to = format!("2-{}-{}/{other}", first.name(), second.name());
                let from = format!("{dir}/{name}");
                let done = run(&place, &from, &to, second, Some(first), END).unwrap();
                prop_assert_eq!((done[0].tokens, done[0].end_of_text_added), (stream.len() as u64, 0));
                prop_assert_eq!(done[0].documents, Some(texts.len() as u64));
                let back = format!("3-{}-{}/x.bin", first.name(), second.name());
                run(&place, &to, &back, Format::NANOGPT, Some(second), END).unwrap();
                prop_assert_eq!(&std::fs::read(place.path(&back)).unwrap(), &bytes);
                // The same documents give the same files, whatever they came from.
                let direct = format!("1-{}/{other}", second.name());
                prop_assert_eq!(std::fs::read(place.path(&to)).unwrap(), std::fs::read(place.path(&direct)).unwrap());
            }
        }
    }
}

#[test]
fn a_domain_converts_split_by_split_and_comes_back() {
    let place = Place::new();
    cuvee_testkit::write_texts(&place.path("a.jsonl"), &cuvee_testkit::prose(3, 60));
    let domain = place.one(path("a.jsonl")).unwrap();
    let folder = domain.dir.strip_prefix(place.root()).unwrap().to_str().unwrap();
    let done = run(&place, folder, "nano", Format::NANOGPT, None, None).unwrap();
    assert_eq!(done.len(), 3);
    for split in Split::ALL {
        let bin = std::fs::read(domain.dir.join(format!("{split}.bin"))).unwrap();
        assert_eq!(
            std::fs::read(place.path(&format!("nano/{split}.bin"))).unwrap(),
            bin,
            "{split}"
        );
        let record = domain.manifest.split(split);
        let found =
            done.iter().find(|file| file.files[0].ends_with(format!("{split}.bin"))).unwrap();
        assert_eq!((found.documents, found.tokens), (Some(record.documents), record.tokens));
        run(
            &place,
            &format!("nano/{split}.bin"),
            "back",
            Format::MEGATRON,
            Some(Format::NANOGPT),
            END,
        )
        .unwrap();
        let idx = |path: &Path| std::fs::read(path).unwrap();
        assert_eq!(
            idx(&place.path("back.idx")),
            idx(&domain.dir.join(format!("{split}.idx"))),
            "{split}"
        );
        std::fs::remove_file(place.path("back.idx")).unwrap();
        std::fs::remove_file(place.path("back.bin")).unwrap();
    }
}

#[test]
fn documents_without_end_of_text_are_given_one_where_nothing_else_ends_them() {
    let place = unsplit();
    place.write("d.ds", [5u8, 0, 6, 0, 7, 0, 10, 1]);
    place.write("d.ds.index", [2u64, 4].map(u64::to_le_bytes).concat());
    let done = run(&place, "d.ds", "n.bin", Format::NANOGPT, None, END).unwrap();
    assert_eq!((done[0].tokens, done[0].end_of_text_added, done[0].documents), (5, 1, Some(2)));
    assert_eq!(std::fs::read(place.path("n.bin")).unwrap(), [5, 0, 6, 0, 10, 1, 7, 0, 10, 1]);
    // With an index of its own the target needs none.
    let done = run(&place, "d.ds", "m", Format::MEGATRON, None, None).unwrap();
    assert_eq!((done[0].tokens, done[0].end_of_text_added), (4, 0));
    assert_eq!(documents(&Shard::open(&place.path("m")).unwrap()), [vec![5, 6], vec![7, END]]);
}

#[test]
fn ids_that_a_format_cannot_hold_are_refused_and_others_choose_their_width() {
    let place = unsplit();
    let ids = |ids: &[u32]| ids.iter().flat_map(|id| id.to_le_bytes()).collect::<Vec<u8>>();
    place.write("wide.ds", ids(&[5, 65_536, 2]));
    place.write("wide.ds.index", 3u64.to_le_bytes());
    place.write("wide.ds.metadata", "t|4\n");
    let error = run(&place, "wide.ds", "n.bin", Format::NANOGPT, None, 2).unwrap_err().to_string();
    assert!(error.contains("ids that nanogpt can hold, found ids up to 65536"), "{error}");
    assert!(error.contains("\nhint: ") && !place.path("n.bin").exists(), "{error}");
    for (format, to, token_type) in [
        (Format::LLMC, "l.bin", TokenType::U32),
        (Format::MEGATRON, "m.bin", TokenType::I32),
        (Format::DATATROVE, "d.ds", TokenType::U32),
    ] {
        let done = run(&place, "wide.ds", to, format, None, 2).unwrap();
        assert_eq!(done[0].token_type, token_type);
        let bytes = std::fs::read(place.path(to)).unwrap();
        assert!(bytes.ends_with(&ids(&[5, 65_536, 2])), "{to}");
    }
    assert_eq!(std::fs::read(place.path("l.bin")).unwrap()[..1024], llmc(20_240_801, 7, 3)[..]);
    // 65,535 is the last id of u16, though Megatron itself turns to i32 a little before.
    place.write("edge.bin", [255u8, 255, 2, 0]);
    let width = |to: &str, format| {
        run(&place, "edge.bin", to, format, Some(Format::NANOGPT), 2).unwrap()[0].token_type
    };
    assert_eq!(width("e1.bin", Format::LLMC), TokenType::U16);
    assert_eq!(width("e2.ds", Format::DATATROVE), TokenType::U16);
    assert_eq!(width("e3", Format::MEGATRON), TokenType::I32);
}

#[test]
fn nothing_is_written_over_and_nothing_half_written_is_left() {
    let place = unsplit();
    place.write("n.bin", U16);
    for taken in ["out/x.bin", "out/x.idx"] {
        place.write(taken, "somebody's");
        let error = run(&place, "n.bin", "out/x", Format::MEGATRON, Some(Format::NANOGPT), END)
            .unwrap_err();
        let text = error.to_string();
        assert!(
            error.is_usage()
                && text.contains("expected no such file yet")
                && text.contains("hint: "),
            "{text}"
        );
        assert_eq!(std::fs::read(place.path(taken)).unwrap(), b"somebody's");
        std::fs::remove_file(place.path(taken)).unwrap();
    }
    // Interrupted: not even the temporary file stays.
    let request = Convert {
        input: &place.path("n.bin"),
        input_as: TokensAs { format: Some(Format::NANOGPT), token_type: None },
        split: None,
        output: &place.path("out/x"),
        to: Format::MEGATRON,
        end_of_text: Some(END),
        interrupted: &AtomicBool::new(true),
    };
    assert!(matches!(convert(&request, &Silent), Err(DataError::Interrupted)));
    assert_eq!(std::fs::read_dir(place.path("out")).unwrap().count(), 0);
}

#[test]
fn a_stretch_without_end_of_text_is_cut_so_that_memory_stays_bounded() {
    let place = unsplit();
    // 2²⁰ tokens and a few more, none of them end-of-text; ids below 256 are bytes, here letters.
    let long: Vec<u8> = std::iter::repeat_n([70u8, 0], (1 << 20) + 3).flatten().collect();
    place.write("long.bin", &long);
    let source = SourceSpec { format: Some(Format::NANOGPT.name().to_owned()), ..path("long.bin") };
    let domain = place.one(source).unwrap();
    let lengths: Vec<usize> = documents(domain.shard(Split::Train)).iter().map(Vec::len).collect();
    assert_eq!(lengths, [(1 << 20) + 1, 4], "cut at 2²⁰, each ended");
    // Converting copies the stream as it is.
    run(&place, "long.bin", "l.bin", Format::LLMC, Some(Format::NANOGPT), None).unwrap();
    assert_eq!(std::fs::read(place.path("l.bin")).unwrap()[1024..], long[..]);
}

#[test]
fn damage_is_named_with_what_was_expected_and_found() {
    let place = unsplit();
    let whole = [llmc(20_240_520, 1, 6), U16.to_vec()].concat();
    place.write("short.bin", &whole[..1000]);
    place.write("version.bin", [llmc(20_240_520, 2, 6), U16.to_vec()].concat());
    place.write("count.bin", [llmc(20_240_520, 1, 7), U16.to_vec()].concat());
    place.write("odd.bin", [llmc(20_240_520, 1, 6), U16[..11].to_vec()].concat());
    place.write("magic.bin", [llmc(20_250_520, 1, 6), U16.to_vec()].concat());
    place.write("odd-nano.bin", &U16[..11]);
    place.write("alone.ds", U16);
    for (name, ends, metadata) in [
        ("past.ds", vec![3u64, 7], "t|2"),
        ("back.ds", vec![3, 2, 6], "t|2"),
        ("less.ds", vec![3, 5], "t|2"),
        ("size.ds", vec![6], "t|3"),
        ("bars.ds", vec![6], "nothing"),
    ] {
        place.write(name, U16);
        place.write(
            &format!("{name}.index"),
            ends.iter().flat_map(|e| e.to_le_bytes()).collect::<Vec<_>>(),
        );
        place.write(&format!("{name}.metadata"), metadata);
    }
    place.write("ends.ds", U16);
    place.write("ends.ds.index", [0; 9]);
    place.write("bare.npy", U16);
    place.write("cut.npy", &numpy("<u2", U16)[..138]);
    place.write("header.npy", &numpy("<u2", U16)[..9]);
    place.write("float.npy", numpy("<f4", U32));
    place.write("big.npy", numpy(">u2", U16));
    let square =
        String::from_utf8(numpy("<u2", U16)[10..128].to_vec()).unwrap().replace("(6,), ", "(2, 3)");
    place.write("square.npy", [&numpy("<u2", U16)[..10], square.as_bytes(), U16].concat());
    let llmc = Some(Format::LLMC);
    let cases = [
        ("short.bin", llmc, "expected llm.c's header of 1024 bytes, found a file of 1000 bytes"),
        ("version.bin", None, "expected version 1 behind magic number 20240520, found version 2"),
        ("count.bin", None, "expected the 7 tokens that the header counts, found 6"),
        (
            "odd.bin",
            None,
            "expected tokens of 2 bytes each (u16), found 11 bytes of them, which leaves 1 over",
        ),
        ("magic.bin", llmc, "magic number 20240520 (GPT-2) or 20240801 (Llama 3), found 20250520"),
        ("magic.bin", None, "format = \"nanogpt\""),
        ("odd-nano.bin", Some(Format::NANOGPT), "found 11 bytes of them, which leaves 1 over"),
        ("alone.ds", None, "alone.ds.index, found no such file"),
        (
            "past.ds",
            None,
            "past.ds.index: expected document 1, which begins at token 3, to end there or later, at 6 at most, found an end at token 7",
        ),
        ("back.ds", None, "to end there or later, at 6 at most, found an end at token 2"),
        ("less.ds", None, "to end where the tokens do, at 6, found an end at token 5"),
        (
            "size.ds",
            None,
            "size.ds.metadata: expected a first line TOKENIZER|2 or TOKENIZER|4, found \"t|3\"",
        ),
        ("bars.ds", None, "found \"nothing\""),
        ("ends.ds", None, "ends.ds.index: expected ends of 8 bytes each, found 9 bytes"),
        ("bare.npy", None, "set token_type = \"u16\" or \"u32\""),
        ("cut.npy", None, "expected 6 numbers of 2 bytes behind NumPy's header, found 10 bytes"),
        ("header.npy", None, "found a header that ends with the file"),
        ("float.npy", None, "found numbers described as '<f4'"),
        ("big.npy", None, "found numbers described as '>u2'"),
        ("square.npy", None, "found shape (2, 3)"),
    ];
    for (name, format, words) in cases {
        let format = format.map(|format| format.name().to_owned());
        let error = place.refusal(SourceSpec { format, ..path(name) });
        assert!(error.contains(words), "{name}: {error}");
    }
    // Where no file says how ids are stored, the index may.
    place.write("wide.ds", U16);
    place.write("wide.ds.index", 3u64.to_le_bytes());
    let error = place.refusal(path("wide.ds"));
    assert!(error.contains("stored in 4 bytes each, say so: `token_type = \"u32\"`"), "{error}");
    let wide = SourceSpec { token_type: Some(TokenType::U32), ..path("wide.ds") };
    assert!(!place.refusal(wide).contains("token_type = "), "now only the ids are wrong");
    // What is said must not contradict what the file says.
    place.write("u16.bin", whole);
    let wide = SourceSpec { token_type: Some(TokenType::U32), ..path("u16.bin") };
    assert!(
        place
            .refusal(wide)
            .contains("tokens of type u32, as `token_type` says, found a header that says u16")
    );
}

#[test]
fn ids_beyond_the_vocabulary_are_refused_with_their_document() {
    let place = unsplit();
    place.write("n.bin", [5u8, 0, 10, 1, 6, 0, 11, 1]);
    let error = place
        .refusal(SourceSpec { format: Some(Format::NANOGPT.name().to_owned()), ..path("n.bin") });
    assert!(
        error.contains("n.bin, document 1: expected token ids below 267, found 267"),
        "{error}"
    );
}

#[test]
fn folders_take_what_tells_itself_and_the_format_that_is_named() {
    let place = unsplit();
    write_golden(&place);
    for name in ["nano.bin", "nano32.bin", "olmo16.npy", "olmo32.npy"] {
        std::fs::rename(place.path(&format!("a/{name}")), place.path(name)).unwrap();
    }
    let read = |source: SourceSpec| place.one(source).unwrap().manifest.counts.read;
    assert_eq!(read(path("a")), 3 * 6, "llm.c's, datatrove's and NumPy's, two each");
    let named = |format: Format| SourceSpec { format: Some(format.name().to_owned()), ..path("a") };
    assert_eq!(read(named(Format::LLMC)), 3 * 2);
    assert_eq!(read(named(Format::OLMO)), 3 * 2);
    place.write("b/x.bin", U16);
    assert_eq!(
        read(SourceSpec { format: Some(Format::NANOGPT.name().to_owned()), ..path("b") }),
        3
    );
    // The .bin of a Megatron shard is no nanoGPT file.
    run(&place, "b/x.bin", "b/y", Format::MEGATRON, Some(Format::NANOGPT), END).unwrap();
    assert_eq!(
        read(SourceSpec { format: Some(Format::NANOGPT.name().to_owned()), ..path("b") }),
        3
    );
    let error =
        place.refusal(SourceSpec { token_type: Some(TokenType::U16), ..path("tokenizer.json") });
    assert!(error.contains("`source.token_type`"), "{error}");
}
