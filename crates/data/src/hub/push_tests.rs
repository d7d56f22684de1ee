#![allow(clippy::unwrap_used, clippy::expect_used)]
//! Putting a model on the Hub, against a mirror on loopback that is wrong in the ways we know of.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use cuvee_testkit::{Fault, Mirror, MirrorFile};
use tempfile::TempDir;

use super::push::push_with;
use super::*;

const NAME: &str = "me/model";
const TOKEN: &str = "hf_the_secret_of_the_tests";

/// A mirror, and a folder of a model that is to go there.
struct Place {
    mirror: Mirror,
    folder: TempDir,
    files: Vec<(String, PathBuf)>,
    private: bool,
    branch: Option<&'static str>,
    /// `HF_HUB_OFFLINE`, and whether there is a token.
    offline: bool,
    token: bool,
    told: Mutex<Vec<(String, u64, u64)>>,
    interrupted: AtomicBool,
    interrupts: bool,
}

impl Progress for Place {
    fn start(&self, _: &str, _: Option<u64>) {}
    fn advance(&self, _: u64) {}
    fn finish(&self, _: &str) {}
    fn sending(&self, file: &str, done: u64, total: u64) {
        self.interrupted.store(self.interrupts, Ordering::Relaxed);
        self.told.lock().unwrap().push((file.to_owned(), done, total));
    }
}

fn weights(seed: u8) -> Vec<u8> {
    (0..3_000_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8 ^ seed).collect()
}

impl Place {
    fn new() -> Place {
        let mut place = Place {
            mirror: Mirror::start(),
            folder: tempfile::tempdir().unwrap(),
            files: Vec::new(),
            private: false,
            branch: None,
            offline: false,
            token: true,
            told: Mutex::default(),
            interrupted: AtomicBool::new(false),
            interrupts: false,
        };
        place.write("config.json", b"{}");
        place.write("model-00001-of-00002.safetensors", &weights(0));
        place.write("model-00002-of-00002.safetensors", &weights(1));
        place.write("model.safetensors.index.json", b"{\"weight_map\": {}}");
        place.write("empty.txt", b"");
        place
    }

    fn write(&mut self, name: &str, bytes: &[u8]) {
        let path = self.folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        self.files.retain(|(known, _)| known != name);
        self.files.push((name.to_owned(), path));
    }

    fn push(&self) -> Result<Pushed> {
        let variables = [
            ("HF_ENDPOINT", self.mirror.endpoint()),
            ("HF_HOME", self.folder.path().join("home").to_str().unwrap().to_owned()),
            ("HF_TOKEN", if self.token { TOKEN.to_owned() } else { String::new() }),
            ("HF_HUB_OFFLINE", if self.offline { "1".to_owned() } else { String::new() }),
        ];
        let get =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, v)| v.into());
        let settings = Settings::from_variables(get).unwrap();
        let push = Push {
            repository: NAME,
            files: &self.files,
            private: self.private,
            branch: self.branch,
            gives_way: Some(GivesWay {
                path: "README.md",
                is_nobodys: |text| text.starts_with(b"made"),
            }),
            message: "A model",
            interrupted: &self.interrupted,
        };
        push_with(&settings, &push, self)
    }

    fn local(&self) -> BTreeMap<String, Vec<u8>> {
        let read = |(name, path): &(String, PathBuf)| (name.clone(), std::fs::read(path).unwrap());
        self.files.iter().map(read).collect()
    }

    /// The files on a branch but the one that every repository begins with.
    fn remote(&self, branch: &str) -> BTreeMap<String, Vec<u8>> {
        let mut files = self.mirror.files(NAME, branch);
        files.remove(".gitattributes");
        files
    }

    /// The message of a push that must fail: with a hint, without the token.
    fn refusal(&self) -> String {
        let error = self.push().expect_err("must be refused");
        let (message, debug) = (error.to_string(), format!("{error:?}"));
        assert!(message.lines().last().unwrap().starts_with("hint: "), "{message}");
        assert!(!message.contains(TOKEN) && !debug.contains(TOKEN), "{debug}");
        assert!(message.contains(NAME), "{message}");
        message
    }

    fn puts(&self) -> usize {
        let requests = self.mirror.requests();
        let puts = requests.iter().filter(|request| request.method == "PUT");
        puts.inspect(|put| assert_eq!(put.authorization, None, "the token is the Hub's alone"))
            .count()
    }
}

fn how(pushed: &Pushed) -> Vec<Sent> {
    pushed.files.iter().map(|file| file.sent).collect()
}

#[test]
fn a_model_is_pushed_whole_into_a_repository_that_is_made() {
    let place = Place::new();
    let pushed = place.push().unwrap();
    assert_eq!(place.remote("main"), place.local());
    assert_eq!(how(&pushed), [Sent::Now; 5]);
    assert_eq!((pushed.commit.len(), pushed.deleted.len()), (40, 0));
    assert_eq!(pushed.url, format!("{}/{NAME}", place.mirror.endpoint()));
    assert!(!place.mirror.is_private(NAME));
    assert_eq!(place.puts(), 2, "only large files go to the storage");
    let told = place.told.lock().unwrap();
    let last = told.iter().rfind(|(file, ..)| file.ends_with("00001-of-00002.safetensors"));
    assert!(last.is_some_and(|(file, done, total)| {
        file.starts_with(NAME) && done == total && *total == 3_000_000
    }));
}

#[test]
fn what_is_there_already_is_not_sent_again() {
    let mut place = Place::new();
    let first = place.push().unwrap();
    place.mirror.requests();
    let again = place.push().unwrap();
    assert_eq!((again.commit, place.puts()), (first.commit, 0), "no empty commit");
    assert!(again.files.iter().all(|file| file.sent == Sent::Unchanged));
    place.write("model-00002-of-00002.safetensors", &weights(2));
    place.write("config.json", b"{\"new\": 1}");
    let changed = place.push().unwrap();
    assert_eq!(place.puts(), 1);
    assert_eq!(changed.files.iter().filter(|file| file.sent == Sent::Now).count(), 2);
    assert_eq!(place.remote("main"), place.local());
}

#[test]
fn large_files_go_in_the_parts_that_the_storage_wants() {
    let place = Place::new();
    place.mirror.parts_of(1_000_001);
    place.push().unwrap();
    assert_eq!(place.puts(), 6);
    assert_eq!(place.remote("main"), place.local());
}

#[test]
fn a_push_that_failed_changes_nothing_and_the_next_sends_what_is_missing() {
    let place = Place::new();
    place.mirror.fault(Fault::Uploads(1));
    let message = place.refusal();
    assert!(message.contains("not sent again"), "{message}");
    assert!(place.remote("main").is_empty(), "no commit of half a model");
    place.mirror.fault(Fault::None);
    place.mirror.requests();
    let pushed = place.push().unwrap();
    assert_eq!(place.puts(), 1);
    assert_eq!(how(&pushed), [Sent::Now, Sent::Before, Sent::Now, Sent::Now, Sent::Now]);
    assert_eq!(place.remote("main"), place.local());
}

#[test]
fn a_storage_that_is_busy_for_a_moment_is_asked_again() {
    let place = Place::new();
    place.mirror.fault(Fault::Busy(2));
    place.push().unwrap();
    assert_eq!(place.remote("main"), place.local());
}

#[test]
fn weights_of_an_older_layout_do_not_stay_beside_the_new() {
    let place = Place::new();
    let old = [
        MirrorFile::large("model.safetensors", weights(9)),
        MirrorFile::large("model-00001-of-00003.safetensors", weights(8)),
        MirrorFile::large("other.safetensors", weights(7)),
        MirrorFile::small("notes.md", "mine"),
    ];
    place.mirror.model(NAME, &old);
    let pushed = place.push().unwrap();
    assert_eq!(pushed.deleted, ["model-00001-of-00003.safetensors", "model.safetensors"]);
    let mut expected = place.local();
    expected.insert("other.safetensors".into(), weights(7));
    expected.insert("notes.md".into(), b"mine".to_vec());
    assert_eq!(place.remote("main"), expected);
}

#[test]
fn a_card_that_somebody_wrote_on_the_hub_stays_where_it_is() {
    let mut place = Place::new();
    place.files.clear();
    place.write("config.json", b"{}");
    place.write("README.md", b"made anew");
    for (there, kept) in [("made before", false), ("made anew", false), ("written", true)] {
        // In Git and in the storage alike.
        for file in [MirrorFile::small("README.md", there), MirrorFile::large("README.md", there)] {
            place.mirror.model(NAME, &[file]);
            let pushed = place.push().unwrap();
            let expected = if kept { there } else { "made anew" };
            assert_eq!(place.remote("main")["README.md"], expected.as_bytes());
            assert_eq!(!pushed.kept.is_empty(), kept);
            assert_eq!(pushed.files.iter().any(|file| file.path == "README.md"), !kept);
        }
    }
    // Of the branch that is pushed to; one that cannot be read is not replaced.
    place.branch = Some("next");
    assert_eq!(place.push().unwrap().kept, ["README.md"]);
    place.mirror.fault(Fault::WrongBytes);
    assert!(place.refusal().contains("README.md: expected a content"));
}

#[test]
fn another_branch_is_made_and_main_stays() {
    let mut place = Place::new();
    place.mirror.model(NAME, &[MirrorFile::small("notes.md", "mine")]);
    place.branch = Some("step/1000");
    let pushed = place.push().unwrap();
    assert!(pushed.url.ends_with("/tree/step/1000"), "{}", pushed.url);
    assert_eq!(place.remote("main").len(), 1);
    let mut expected = place.local();
    expected.insert("notes.md".into(), b"mine".to_vec());
    assert_eq!(place.remote("step/1000"), expected);
    place.push().unwrap();
}

#[test]
fn a_private_repository_is_made_private_and_a_public_one_is_none() {
    let mut place = Place::new();
    place.private = true;
    place.push().unwrap();
    assert!(place.mirror.is_private(NAME));
    place.push().unwrap();
    let mut place = Place::new();
    place.mirror.model(NAME, &[]);
    place.private = true;
    let message = place.refusal();
    assert!(message.contains("found a public one"), "{message}");
}

#[test]
fn who_may_not_write_is_told_what_to_do_and_sees_no_token() {
    for (status, words) in [
        (401, "not known or not valid"),
        (403, "must be one that may write"),
        (404, "look at the spelling"),
        (413, "--max-shard"),
        (500, "not sent again"),
    ] {
        let place = Place::new();
        place.mirror.model(NAME, &[]);
        place.mirror.fault(Fault::RefuseWrites(status));
        let message = place.refusal();
        assert!(message.contains(&status.to_string()) && message.contains(words), "{message}");
        assert!(message.contains("(the token)"), "what the server echoes is masked: {message}");
    }
    // Nobody may make it, either.
    let place = Place::new();
    place.mirror.fault(Fault::RefuseWrites(403));
    assert!(place.refusal().contains("cannot make the repository"));
}

#[test]
fn a_branch_that_moves_meanwhile_is_left_to_whoever_moved_it() {
    let place = Place::new();
    place.mirror.fault(Fault::Race);
    let message = place.refusal();
    assert!(message.contains("412") && message.contains("somebody else"), "{message}");
    assert_eq!(place.remote("main").into_keys().collect::<Vec<_>>(), ["other.md"]);
    place.mirror.fault(Fault::None);
    place.push().unwrap();
    assert_eq!(place.remote("main").len(), 6);
}

#[test]
fn a_commit_that_is_not_what_was_sent_is_found_out() {
    let place = Place::new();
    place.mirror.fault(Fault::CommitsOther);
    let message = place.refusal();
    let named = message.contains("model-00001-of-00002.safetensors: expected 3000000 bytes");
    assert!(named && message.contains("was made, but"), "{message}");
}

#[test]
fn without_a_network_a_token_or_an_owner_nothing_is_begun() {
    let mut place = Place::new();
    place.offline = true;
    assert!(place.refusal().contains("HF_HUB_OFFLINE"));
    place.offline = false;
    place.token = false;
    assert!(place.refusal().contains("HF_TOKEN"));
    assert!(place.mirror.requests().is_empty());
    let none = Push {
        repository: "model",
        files: &[],
        private: false,
        branch: None,
        gives_way: None,
        message: "",
        interrupted: &place.interrupted,
    };
    for message in [push_model(&none, &place).err(), check_destination("model", None).err()] {
        let message = message.unwrap().to_string();
        assert!(message.contains("OWNER/model"), "{message}");
    }
    let message = check_destination(NAME, Some("../x")).unwrap_err().to_string();
    assert!(message.contains("`--branch`: expected the name of a branch"), "{message}");
    check_destination(NAME, None).unwrap();
    place.token = true;
    place.mirror.stop();
    assert!(place.refusal().contains("it cannot be reached"));
}

#[test]
fn an_interruption_ends_a_push() {
    let mut place = Place::new();
    place.interrupts = true;
    assert!(matches!(place.push(), Err(DataError::Interrupted)));
    assert!(place.remote("main").is_empty());
}
