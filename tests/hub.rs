//! The whole way from the Hugging Face Hub, played by a mirror on loopback, to a trained model.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use assert_cmd::Command;
use cuvee_testkit::{
    Fault, Mirror, MirrorFile, code_like, digits_parquet, prose, tiny_tokenizer_json,
    workspace_root,
};
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use serde_json::{Value, json};
use walkdir::WalkDir;

use crate::common::{Place, metrics};

const TOKEN: &str = "hf_the_secret_of_the_tests";
const WIKIPEDIA: &str = "wikimedia/wikipedia";
const CODE: &str = "codeparrot/codeparrot-clean";
const PARQUET: &str = "20231101.simple/train-00000-of-00001.parquet";
/// As the config says, but for a quick look at what it does.
const SMALL: [&str; 9] = [
    "train.steps=6",
    "train.batch_size=4",
    "train.context=32",
    "model.preset=xs",
    "eval.every=3",
    "eval.sequences=4",
    "domain.wikipedia.source.limit=60kB",
    "domain.github.source.limit=40kB",
    "domain.github.max_epochs=100",
];

/// The columns of Wikipedia's files.
fn parquet(texts: &[String]) -> Vec<u8> {
    let schema = "message schema { required binary id (UTF8); required binary text (UTF8); }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let properties = Arc::new(WriterProperties::builder().build());
    let mut out = Vec::new();
    let mut writer = SerializedFileWriter::new(&mut out, schema, properties).unwrap();
    let mut group = writer.next_row_group().unwrap();
    for column in 0..2 {
        let value = |(i, text): (usize, &String)| match column {
            0 => ByteArray::from(i.to_string().into_bytes()),
            _ => ByteArray::from(text.clone().into_bytes()),
        };
        let values: Vec<ByteArray> = texts.iter().enumerate().map(value).collect();
        let mut writer = group.next_column().unwrap().unwrap();
        writer.typed::<ByteArrayType>().write_batch(&values, None, None).unwrap();
        writer.close().unwrap();
    }
    group.close().unwrap();
    writer.close().unwrap();
    out
}

/// Lines as codeparrot-clean has them.
fn json_gz(texts: &[String]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    for (i, text) in texts.iter().enumerate() {
        writeln!(encoder, "{}", json!({"repo_name": format!("a/{}", i / 2), "content": text}))
            .unwrap();
    }
    encoder.finish().unwrap()
}

const README: &str = "---\nlicense: cc-by-sa-3.0\nconfigs:\n- config_name: 20231101.en\n  data_files:\n  - split: \
                      train\n    path: 20231101.en/*\n- config_name: 20231101.simple\n  data_files:\n  - split: train\n    \
                      path: 20231101.simple/*\n---\n# Wikipedia\n";

fn wikipedia(seed: u64) -> Vec<MirrorFile> {
    vec![
        MirrorFile::small("README.md", README),
        MirrorFile::large("20231101.en/train-00000-of-00041.parquet", "never asked for"),
        MirrorFile::large(PARQUET, parquet(&prose(seed, 600))),
    ]
}

/// What `configs/wikipedia-github.toml` names, and a folder without anything.
struct Hub {
    mirror: Mirror,
    place: Place,
    config: String,
}

impl Hub {
    fn new() -> Hub {
        let mirror = Mirror::start();
        mirror.dataset(WIKIPEDIA, &wikipedia(1));
        let names = ["file-000000000001.json.gz", "file-000000000002.json.gz"];
        let code = |(i, name): (u64, &&str)| MirrorFile::large(name, json_gz(&code_like(i, 400)));
        mirror.dataset(CODE, &(0..).zip(&names).map(code).collect::<Vec<_>>());
        let tokenizer = [MirrorFile::small("tokenizer.json", tiny_tokenizer_json())];
        mirror.model("EleutherAI/pythia-160m", &tokenizer);
        let config = workspace_root().join("configs/wikipedia-github.toml").display().to_string();
        Hub { mirror, place: Place::new(), config }
    }

    /// The binary, with the Hub where the mirror is, and nobody else's settings.
    fn cuvee(&self, args: &[&str]) -> Command {
        let mut command = self.place.cuvee(args);
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy().to_ascii_lowercase();
            if name.starts_with("hf_") || name.ends_with("_proxy") {
                command.env_remove(name.to_ascii_uppercase()).env_remove(name);
            }
        }
        command.env("HF_ENDPOINT", self.mirror.endpoint()).env("HF_HOME", self.place.path("hf"));
        command.env("HF_TOKEN", TOKEN).env("RUST_LOG", "trace");
        command
    }

    /// Runs with [`SMALL`], and with `more` variables; what people read.
    fn run(&self, code: i32, args: &[&str], variables: &[(&str, &str)]) -> String {
        let set: Vec<&str> = SMALL.iter().flat_map(|set| ["--set", set]).collect();
        let mut command = self.cuvee(&[args, &set].concat());
        command.envs(variables.iter().copied());
        let output = command.output().unwrap();
        let (out, stderr) =
            (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        assert_eq!(output.status.code(), Some(code), "cuvee {args:?}:\n{stderr}");
        assert!(!stderr.contains("panicked"), "{stderr}");
        assert!(
            !stderr.contains(TOKEN) && !out.contains(TOKEN),
            "the token is nobody's business: {stderr}"
        );
        stderr
    }

    fn prepare(&self, variables: &[(&str, &str)]) -> String {
        self.run(0, &["prepare", &self.config, "--out", "shards"], variables)
    }

    /// The files that were asked for since the last time, each once.
    fn fetched(&self) -> Vec<String> {
        let requests = self.mirror.requests();
        let gets = requests.iter().filter(|request| request.method == "GET");
        gets.filter_map(|request| Some(request.path.split_once("/resolve/")?.1[41..].to_owned()))
            .collect()
    }

    fn manifest(&self, domain: &str) -> Value {
        let text = std::fs::read(self.place.path(&format!("shards/{domain}/shard.json"))).unwrap();
        serde_json::from_slice(&text).unwrap()
    }

    /// No file of the place holds the token.
    fn kept_the_token(&self) {
        for file in WalkDir::new(self.place.path("")).into_iter().map(|file| file.unwrap()) {
            if file.file_type().is_file() {
                let bytes = std::fs::read(file.path()).unwrap();
                let holds = bytes.windows(TOKEN.len()).any(|window| window == TOKEN.as_bytes());
                assert!(!holds, "{}", file.path().display());
            }
        }
    }
}

#[test]
fn the_config_trains_from_the_hub_to_an_export() {
    let mut hub = Hub::new();
    let said = hub.run(0, &["train", &hub.config, "--out", "run"], &[]);
    assert!(
        said.contains("fetch wikimedia/wikipedia/20231101.simple/train-00000-of-00001.parquet"),
        "{said}"
    );
    assert_eq!(
        hub.fetched(),
        ["README.md", "tokenizer.json", PARQUET, "file-000000000001.json.gz"],
        "and no file behind the limit"
    );
    let run = hub.place.path("run");
    let last = metrics(&run).into_iter().rfind(|record| record["kind"] == "eval").unwrap();
    assert!(last["domains"]["wikipedia"]["loss"].as_f64().unwrap().is_finite(), "{last}");
    assert!(run.join("export/model.safetensors").is_file());
    assert_eq!(
        std::fs::read_to_string(run.join("export/tokenizer.json")).unwrap(),
        tiny_tokenizer_json(),
        "the Hub's tokenizer goes on with the model, unchanged"
    );
    hub.kept_the_token();

    // The model, put on the Hub, is one to go on from, to read with and to measure; a folder of
    // that name goes before.
    let file =
        |name: &str| MirrorFile::large(name, std::fs::read(run.join("export").join(name)).unwrap());
    let names = ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json"];
    hub.mirror.model("org/blend", &names.map(file));
    let generated = hub
        .cuvee(&["generate", "org/blend", "--prompt", "The ", "--tokens", "4"])
        .output()
        .unwrap();
    assert!(generated.status.success() && generated.stdout.starts_with(b"The "), "{generated:?}");
    let init = ["train", &hub.config, "--out", "next", "--set", "model={init=\"org/blend\"}"];
    let set: Vec<&str> =
        SMALL.iter().filter(|s| !s.starts_with("model.")).flat_map(|set| ["--set", set]).collect();
    let next = hub.cuvee(&[&init[..], &set].concat()).output().unwrap();
    assert!(next.status.success(), "{}", String::from_utf8_lossy(&next.stderr));
    let first = |run: &str| {
        let records = metrics(&hub.place.path(run));
        let record = records.iter().find(|record| record["kind"] == "eval").unwrap();
        record["domains"]["wikipedia"]["loss"].as_f64().unwrap()
    };
    assert!(first("next") < first("run"), "it goes on where the other ended");

    // All of it again, with nobody to ask.
    hub.mirror.stop();
    hub.run(0, &["train", &hub.config, "--out", "offline"], &[("HF_HUB_OFFLINE", "1")]);
    let said = hub.run(0, &["train", &hub.config, "--out", "down"], &[]);
    assert!(said.contains("warning: the Hub cannot be reached"), "{said}");
    let loss = |run: &str| metrics(&hub.place.path(run)).pop().unwrap()["domains"].clone();
    assert_eq!(loss("offline"), loss("run"));
    assert_eq!(loss("down"), loss("run"));
}

#[test]
fn a_run_is_pushed_and_what_is_fetched_again_is_the_same_model() {
    let mut hub = Hub::new();
    hub.run(0, &["train", &hub.config, "--out", "run", "--set", "export.max_shard=200kB"], &[]);
    let push = |hub: &Hub, more: &[&str]| {
        let output = hub.cuvee(&[&["push", "run", "me/blend", "--json"], more].concat()).output();
        let output = output.unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!said.contains(TOKEN), "{said}");
        (output.status.code(), said, output.stdout)
    };
    hub.mirror.requests();
    let (code, said, _) = push(&hub, &["--plan"]);
    assert_eq!((code, hub.mirror.requests().len()), (Some(0), 0), "{said}");
    assert!(said.contains("nothing was sent") && said.contains("README.md"), "{said}");
    hub.mirror.fault(Fault::Uploads(1));
    let (code, said, _) = push(&hub, &[]);
    assert!(code == Some(1) && said.contains("hint: run the same command again"), "{said}");
    hub.mirror.fault(Fault::None);
    let (code, said, document) = push(&hub, &["--private", "--message", "The first"]);
    // Made public by the push that failed.
    assert!(code == Some(1) && said.contains("found a public one"), "{said}");
    assert!(document.is_empty());
    let (code, said, document) = push(&hub, &[]);
    assert_eq!(code, Some(0), "{said}");
    let document: Value = serde_json::from_slice(&document).unwrap();
    let export = hub.place.path("run/export");
    let pushed = hub.mirror.files("me/blend", "main");
    for entry in std::fs::read_dir(&export).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert_eq!(pushed[&name], std::fs::read(export.join(&name)).unwrap(), "{name}");
    }
    assert_eq!(document["files"].as_array().unwrap().len(), pushed.len() - 1);
    assert!(document["files"].to_string().contains("\"sent\":\"before\""), "{document}");
    // And back, its shards through their index.
    let text = |model: &str| {
        let args = ["generate", model, "--prompt", "The ", "--tokens", "8", "--temperature", "0"];
        let output = hub.cuvee(&args).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    assert_eq!(text("me/blend"), text("run"));
    // A card that somebody wrote stays: on the Hub against a made one, and one made by hand here.
    let card = || hub.mirror.files("me/blend", "main").remove("README.md").unwrap();
    hub.mirror.model("me/blend", &[MirrorFile::small("README.md", "theirs")]);
    let (code, said, document) = push(&hub, &[]);
    assert!(code == Some(0) && said.contains("README.md was not sent"), "{said}");
    let document: Value = serde_json::from_slice(&document).unwrap();
    assert_eq!((card(), &document["kept"]), (b"theirs".to_vec(), &json!(["README.md"])));
    std::fs::write(export.join("README.md"), "ours").unwrap();
    assert_eq!((push(&hub, &[]).0, card()), (Some(0), b"ours".to_vec()));
    hub.kept_the_token();
    for (name, branch) in [("blend", "main"), ("me/blend", "a/../b")] {
        let args = ["push", "run", name, "--branch", branch, "--plan"];
        let output = hub.cuvee(&args).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2) && !said.contains("would push"), "{said}");
    }
    let offline = hub.cuvee(&["push", "run", "me/blend"]).env("HF_HUB_OFFLINE", "1").output();
    let said = String::from_utf8(offline.unwrap().stderr).unwrap();
    assert!(said.contains("HF_HUB_OFFLINE"), "{said}");
    let nowhere = hub.cuvee(&["push", "runs", "me/blend"]).output().unwrap();
    assert!(String::from_utf8_lossy(&nowhere.stderr).contains("does not exist"));
    hub.mirror.stop();
    let (code, said, _) = push(&hub, &[]);
    assert!(code == Some(1) && said.contains("cannot be reached"), "{said}");
}

#[test]
fn a_model_of_the_hub_in_several_files_is_fetched_whole_or_refused_at_once() {
    let hub = Hub::new();
    let index = |files: &[&str]| {
        let map: serde_json::Map<String, Value> =
            files.iter().map(|file| (format!("tensor of {file}"), json!(file))).collect();
        MirrorFile::small("model.safetensors.index.json", json!({"weight_map": map}).to_string())
    };
    let config = || MirrorFile::small("config.json", "{}");
    let refused = |name: &str, files: &[MirrorFile]| {
        hub.mirror.model(name, files);
        hub.mirror.requests();
        let output = hub.cuvee(&["generate", name, "--prompt", "x"]).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).unwrap()
    };
    let large = |name: &str| MirrorFile::large(name, "large".repeat(1000));
    let said = refused(
        "org/part",
        &[config(), index(&["a.safetensors", "b.safetensors"]), large("a.safetensors")],
    );
    assert!(said.contains("names `b.safetensors`") && said.contains("hint: "), "{said}");
    assert!(!hub.fetched().contains(&"a.safetensors".to_owned()), "nothing large was fetched");
    let said = refused("org/old", &[config(), large("pytorch_model.bin")]);
    assert!(said.contains("`pytorch_model.bin`") && said.contains("save_pretrained"), "{said}");
    assert!(!hub.fetched().contains(&"pytorch_model.bin".to_owned()));
    // One file goes before an index, as in transformers: the shards are not even asked for.
    refused(
        "org/both",
        &[config(), index(&["a.safetensors"]), large("a.safetensors"), large("model.safetensors")],
    );
    let fetched = hub.fetched();
    assert!(fetched.contains(&"model.safetensors".to_owned()), "{fetched:?}");
    assert!(!fetched.contains(&"a.safetensors".to_owned()), "{fetched:?}");
}

#[test]
fn the_lab_takes_mnist_from_the_hub() {
    let mut hub = Hub::new();
    // Ten digits that are easy to tell apart, in four pixels each.
    let digits = |count: i64| {
        let pixels: Vec<[u8; 4]> = (0..count)
            .map(|i| [0, 1, 2, 3].map(|bit| 255 * u8::from((i % 10) >> bit & 1 == 1)))
            .collect();
        let images: Vec<(&[u8], i64)> =
            pixels.iter().zip(0..).map(|(pixels, i)| (&pixels[..], i % 10)).collect();
        digits_parquet(&images, (2, 2))
    };
    let file = |split: &str, count| {
        MirrorFile::large(&format!("mnist/{split}-00000-of-00001.parquet"), digits(count))
    };
    hub.mirror.dataset("ylecun/mnist", &[file("train", 240), file("test", 50)]);
    let args = [
        "lab",
        "mnist",
        "--seeds",
        "2",
        "--steps",
        "60",
        "--json",
        "--set=samples=100",
        "--set=held_out=20",
        "--set=hidden=4",
    ];
    let first = hub.cuvee(&args).output().unwrap();
    assert!(first.status.success(), "{}", String::from_utf8_lossy(&first.stderr));
    let document: Value = serde_json::from_slice(&first.stdout).unwrap();
    assert_eq!(document["study"], "mnist");
    hub.mirror.stop();
    let second = hub.cuvee(&args).env("HF_HUB_OFFLINE", "1").output().unwrap();
    assert_eq!(second.stdout, first.stdout, "from the cache, with nobody to ask");
    std::fs::remove_dir_all(hub.place.path("hf")).unwrap();
    let cold = hub.cuvee(&args).env("HF_HUB_OFFLINE", "1").output().unwrap();
    let said = String::from_utf8_lossy(&cold.stderr);
    assert!(!cold.status.success() && said.contains("--data") && said.contains("hint: "), "{said}");
}

#[test]
fn shards_say_which_commit_and_which_files_they_are_of() {
    let mut hub = Hub::new();
    hub.prepare(&[]);
    let manifest = hub.manifest("wikipedia");
    let commit = manifest["source"]["hub"]["commit"].as_str().unwrap().to_owned();
    assert_eq!(manifest["source"]["hub"]["repository"], WIKIPEDIA);
    assert_eq!(commit.len(), 40);
    let file = &wikipedia(1)[2];
    let [record] = manifest["source"]["files"].as_array().unwrap().as_slice() else {
        panic!("{manifest}")
    };
    assert_eq!(record["path"], PARQUET);
    assert_eq!(record["oid"], file.oid());
    assert!(
        record["bytes"].as_u64().unwrap() > 10_000 && record.get("modified").is_none(),
        "{record}"
    );
    assert_eq!(manifest["source"]["spec"]["limit"], "60kB");

    // Nothing is made again for a cache that was touched, lies elsewhere or is gone: the Hub's
    // hashes decide.
    hub.fetched();
    std::fs::remove_dir_all(hub.place.path("hf")).unwrap();
    let said = hub.prepare(&[]);
    assert!(!said.contains("tokenize w") && !said.contains("tokenize g"), "{said}");
    assert_eq!(hub.fetched(), ["README.md", "tokenizer.json"]);

    // A revision that has moved is another corpus, and it is said.
    let moved = hub.mirror.dataset(WIKIPEDIA, &wikipedia(2));
    let said = hub.prepare(&[]);
    assert!(said.contains(&format!("moved from commit {commit} to {moved}: made again")), "{said}");
    assert!(said.contains("tokenize wikipedia") && !said.contains("tokenize github"), "{said}");
    assert_eq!(hub.manifest("wikipedia")["source"]["hub"]["commit"], moved);

    // Offline, it is the commit that was last seen, also for a whole data set that has to be
    // tokenized again.
    hub.mirror.dataset(WIKIPEDIA, &wikipedia(3));
    hub.mirror.stop();
    std::fs::remove_dir_all(hub.place.path("shards/wikipedia")).unwrap();
    hub.prepare(&[("HF_HUB_OFFLINE", "1")]);
    assert_eq!(hub.manifest("wikipedia")["source"]["hub"]["commit"], moved);
}

#[test]
fn files_that_arrive_wrong_leave_no_shards() {
    for fault in [
        Fault::Truncate,
        Fault::WrongBytes,
        Fault::ErrorPage(404),
        Fault::Path("../../evil".into()),
    ] {
        let hub = Hub::new();
        hub.mirror.fault(fault.clone());
        let said = hub.run(1, &["prepare", &hub.config, "--out", "shards"], &[]);
        assert!(
            said.contains("domain `wikipedia`") && said.contains("hint: "),
            "{fault:?}: {said}"
        );
        assert!(!hub.place.path("shards/wikipedia/shard.json").exists(), "{fault:?}");
        hub.kept_the_token();
        hub.mirror.fault(Fault::None);
        hub.prepare(&[]);
    }
}

#[test]
fn a_gated_data_set_says_how_it_opens() {
    let hub = Hub::new();
    for status in [401, 403] {
        hub.mirror.fault(Fault::Refuse(status));
        let said = hub.run(1, &["prepare", &hub.config, "--out", "shards"], &[]);
        let page = format!("{}/datasets/{WIKIPEDIA}", hub.mirror.endpoint());
        assert!(said.contains(&page) && said.contains("HF_TOKEN"), "{said}");
    }
}

#[test]
fn two_processes_fetch_a_file_once() {
    let hub = Hub::new();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| hub.prepare(&[]));
        }
    });
    let mut fetched = hub.fetched();
    fetched.sort();
    assert_eq!(fetched, [PARQUET, "README.md", "file-000000000001.json.gz", "tokenizer.json"]);
}

#[test]
fn a_path_of_this_machine_is_never_asked_of_the_hub() {
    let hub = Hub::new();
    std::fs::create_dir(hub.place.path("runs")).unwrap();
    let output = hub.cuvee(&["generate", "runs/mistyped", "--prompt", "x"]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && said.contains("runs/mistyped does not exist"), "{said}");
    assert_eq!(hub.mirror.requests(), []);
    assert!(!Path::new(&hub.place.path("hf")).exists());
}
