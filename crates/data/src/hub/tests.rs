#![allow(clippy::unwrap_used, clippy::expect_used)]
//! The Hub layer against a mirror on loopback that is wrong in every way we know of.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use cuvee_testkit::{Fault, Mirror, MirrorFile};
use tempfile::TempDir;
use walkdir::WalkDir;

use super::*;

const NAME: &str = "org/texts";
const TOKEN: &str = "hf_the_secret_of_the_tests";
const LARGE: &str = "data/train-00000-of-00001.jsonl";
const SMALL: &str = "README.md";

fn files() -> [MirrorFile; 2] {
    [
        MirrorFile::large(LARGE, "{\"text\": \"some words\"}\n".repeat(9000)),
        MirrorFile::small(SMALL, "# Texts\n"),
    ]
}

/// A mirror with one data set, and a cache of its own.
struct Place {
    mirror: Mirror,
    commit: String,
    folder: TempDir,
    settings: Settings,
    notes: Mutex<Vec<String>>,
    interrupted: AtomicBool,
    /// Where the interruption comes: at the first byte that arrives.
    interrupts: bool,
}

impl Progress for Place {
    fn start(&self, _: &str, _: Option<u64>) {}
    fn advance(&self, _: u64) {}
    fn finish(&self, _: &str) {}
    fn fetching(&self, file: &str, done: u64, total: u64) {
        self.interrupted.store(self.interrupts && done > 0, Ordering::Relaxed);
        if done == 0 || done == total {
            self.note(&format!("{file} {done}/{total}"));
        }
    }
    fn fetched(&self, file: &str) {
        self.note(&format!("{file} ends"));
    }
    fn note(&self, line: &str) {
        self.notes.lock().unwrap().push(line.to_owned());
    }
}

impl Place {
    fn new() -> Place {
        let mirror = Mirror::start();
        let commit = mirror.dataset(NAME, &files());
        let folder = tempfile::tempdir().unwrap();
        let variables = [
            ("HF_ENDPOINT", mirror.endpoint()),
            ("HF_HUB_CACHE", folder.path().join("home/hub").to_str().unwrap().to_owned()),
            ("HF_TOKEN", TOKEN.to_owned()),
        ];
        let get =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, v)| v.into());
        let settings = Settings::from_variables(get).unwrap();
        let (notes, interrupted) = (Mutex::default(), AtomicBool::new(false));
        Place { mirror, commit, folder, settings, notes, interrupted, interrupts: false }
    }

    fn open(&self) -> Result<Snapshot> {
        self.open_at(None)
    }

    fn open_at(&self, revision: Option<&str>) -> Result<Snapshot> {
        let repository = Repository::new(RepoKind::Dataset, NAME, "source.hub")?;
        Snapshot::open_with(&self.settings, repository, revision, self)
    }

    fn fetch(&self, path: &str) -> Result<Vec<u8>> {
        let path = self.open()?.fetch(path, self, &self.interrupted)?;
        Ok(std::fs::read(path).unwrap())
    }

    /// The message of something that must fail: with a hint, without the token.
    fn refusal<T: std::fmt::Debug>(&self, result: Result<T>) -> String {
        let error = result.expect_err("must be refused");
        let (message, debug) = (error.to_string(), format!("{error:?}"));
        assert!(message.lines().last().unwrap().starts_with("hint: "), "{message}");
        assert!(!message.contains(TOKEN) && !debug.contains(TOKEN), "{debug}");
        assert!(message.contains(NAME), "{message}");
        message
    }

    /// Every file and link under the folder but the locks, by its path in it.
    fn left(&self) -> Vec<String> {
        let root = self.folder.path();
        let files = WalkDir::new(root).sort_by_file_name().into_iter().map(|file| file.unwrap());
        files
            .filter(|file| !file.file_type().is_dir())
            .map(|file| file.path().strip_prefix(root).unwrap().to_str().unwrap().to_owned())
            .filter(|path| !path.contains(".locks"))
            .collect()
    }

    /// What knowing the commit and its tree leaves behind.
    fn known(&self) -> Vec<String> {
        let root = "home/hub/datasets--org--texts";
        vec![format!("{root}/.cuvee/{}.json", self.commit), format!("{root}/refs/main")]
    }

    fn notes(&self) -> Vec<String> {
        std::mem::take(&mut self.notes.lock().unwrap())
    }
}

/// A file that arrives wrong: an error with these words, and no trace of the file.
fn leaves_nothing(fault: Fault, words: &str) {
    let place = Place::new();
    place.mirror.fault(fault.clone());
    let message = place.refusal(place.fetch(LARGE));
    assert!(message.contains(LARGE) && message.contains(words), "{fault:?}: {message}");
    assert_eq!(place.left(), place.known(), "{fault:?}");
    assert_eq!(place.notes().last().unwrap(), &format!("{NAME}/{LARGE} ends"));
    // And when the server has come to its senses, it is fetched from its first byte on.
    place.mirror.fault(Fault::None);
    place.mirror.requests();
    assert_eq!(place.fetch(LARGE).unwrap().len(), 9000 * 23);
}

#[test]
fn files_lie_where_other_tools_look_for_them() {
    let place = Place::new();
    assert_eq!(place.fetch(LARGE).unwrap().len(), 9000 * 23);
    assert_eq!(place.fetch(SMALL).unwrap(), b"# Texts\n");
    let root = place.folder.path().join("home/hub/datasets--org--texts");
    assert_eq!(std::fs::read_to_string(root.join("refs/main")).unwrap(), place.commit);
    for (file, up) in files().iter().zip(["../../../", "../../"]) {
        let pointer = root.join("snapshots").join(&place.commit).join(if file.oid().len() == 64 {
            LARGE
        } else {
            SMALL
        });
        let target = std::fs::read_link(&pointer).unwrap();
        assert_eq!(target.to_str().unwrap(), format!("{up}blobs/{}", file.oid()));
        assert!(root.join("blobs").join(file.oid()).is_file());
    }
    assert_eq!(place.left().len(), 6);
}

#[test]
fn each_file_is_asked_for_once_and_tells_how_far_it_is() {
    let place = Place::new();
    let snapshot = place.open().unwrap();
    let asked = |place: &Place| {
        place.mirror.requests().iter().filter(|r| r.path.contains("/resolve/")).count()
    };
    assert_eq!(asked(&place), 0, "opening fetches no file");
    for _ in 0..2 {
        snapshot.fetch(LARGE, &place, &place.interrupted).unwrap();
    }
    assert_eq!(asked(&place), 2, "a HEAD and a GET");
    let name = format!("{NAME}/{LARGE}");
    let size = 9000 * 23;
    assert_eq!(
        place.notes(),
        [format!("{name} 0/{size}"), format!("{name} {size}/{size}"), format!("{name} ends")]
    );
    place.fetch(LARGE).unwrap();
    assert_eq!(asked(&place), 0, "another process finds it");
}

#[test]
fn half_a_file_is_no_file() {
    leaves_nothing(Fault::Truncate, "expected 207000 bytes, found");
}

#[test]
fn a_file_without_end_is_cut_off() {
    leaves_nothing(Fault::Endless, "expected 207000 bytes, found more");
}

#[test]
fn other_bytes_of_the_same_length_are_refused() {
    leaves_nothing(Fault::WrongBytes, "expected a content of SHA-256");
    let place = Place::new();
    place.mirror.fault(Fault::WrongBytes);
    assert!(place.refusal(place.fetch(SMALL)).contains("expected a content of Git SHA-1"));
}

#[test]
fn an_error_page_after_a_good_head_is_no_file() {
    for status in [404, 500] {
        let place = Place::new();
        place.mirror.fault(Fault::ErrorPage(status));
        let message = place.refusal(place.fetch(LARGE));
        assert!(message.contains(&status.to_string()), "{message}");
        assert_eq!(place.left(), place.known());
    }
}

#[test]
fn an_etag_names_nothing() {
    // As long as the content is the tree's, what an ETag says does not matter: no name is made of
    // it.
    for etag in ["../../../../evil", "/tmp/evil", "0000", ""] {
        let place = Place::new();
        place.mirror.fault(Fault::ETag(etag.to_owned()));
        assert_eq!(place.fetch(LARGE).unwrap().len(), 9000 * 23);
        let root = "home/hub/datasets--org--texts";
        let mut expected = place.known();
        expected.push(format!("{root}/blobs/{}", files()[0].oid()));
        expected.push(format!("{root}/snapshots/{}/{LARGE}", place.commit));
        expected.sort();
        let mut left = place.left();
        left.sort();
        assert_eq!(left, expected, "{etag:?}");
    }
}

#[test]
fn paths_that_lead_out_of_the_repository_are_refused_before_anything_is_written() {
    for path in ["../evil", "data/../../evil", "/etc/evil", "data//evil", "."] {
        let place = Place::new();
        place.mirror.fault(Fault::Path(path.to_owned()));
        let message = place.refusal(place.open());
        assert!(
            message.contains("expected paths inside the repository") && message.contains(path),
            "{message}"
        );
        assert_eq!(place.left(), Vec::<String>::new());
    }
}

#[test]
fn a_remembered_tree_is_trusted_no_more_than_a_server() {
    let place = Place::new();
    place.open().unwrap();
    let tree = place.folder.path().join(&place.known()[0]);
    let text = std::fs::read_to_string(&tree).unwrap();
    std::fs::write(&tree, text.replace(LARGE, "../../../../../evil")).unwrap();
    // Asked for again.
    let snapshot = place.open().unwrap();
    assert!(snapshot.has(LARGE) && !snapshot.has("../../../../../evil"));
}

#[test]
fn names_and_revisions_make_no_paths_of_their_own() {
    for name in ["../x", "a/../b", "a/b/c", "/a", "a/", "", ".a/b", "a--b/c", "a/b?x", "a b"] {
        let error = Repository::new(RepoKind::Dataset, name, "source.hub").unwrap_err();
        assert!(error.is_usage() && error.to_string().contains("hint: "), "{name}: {error}");
    }
    let place = Place::new();
    for revision in ["..", "../../x", "/x", ""] {
        assert!(place.open_at(Some(revision)).unwrap_err().is_usage(), "{revision}");
    }
    assert_eq!(place.left(), Vec::<String>::new());
}

#[test]
fn a_tree_of_many_pages_is_read_whole() {
    let place = Place::new();
    let many: Vec<MirrorFile> =
        (0..25).map(|i| MirrorFile::small(&format!("d/{i:02}.txt"), format!("{i}"))).collect();
    place.mirror.dataset(NAME, &many);
    place.mirror.page(4);
    let snapshot = place.open().unwrap();
    let paths: Vec<&str> =
        snapshot.files().unwrap().iter().map(|entry| entry.path.as_str()).collect();
    assert_eq!(paths, (0..25).map(|i| format!("d/{i:02}.txt")).collect::<Vec<_>>());
    // 25 files and as many mentions of their folder.
    let pages =
        place.mirror.requests().iter().filter(|request| request.path.contains("/tree/")).count();
    assert_eq!(pages, 13);
}

#[test]
fn the_token_goes_to_the_hub_and_to_no_other_host() {
    let place = Place::new();
    let other = Mirror::start();
    other.dataset(NAME, &files());
    place.mirror.fault(Fault::Redirect(other.endpoint()));
    assert_eq!(place.fetch(LARGE).unwrap().len(), 9000 * 23);
    let bearer = Some(format!("Bearer {TOKEN}"));
    assert!(place.mirror.requests().iter().all(|request| request.authorization == bearer));
    let there = other.requests();
    assert!(
        !there.is_empty() && there.iter().all(|request| request.authorization.is_none()),
        "{there:?}"
    );

    place.mirror.dataset(NAME, &[files(), files()].concat());
    place.mirror.page(1);
    place.mirror.fault(Fault::NextPageAt(other.endpoint()));
    let message = place.refusal(place.open());
    assert!(message.contains("goes on at another host"), "{message}");
    assert_eq!(other.requests(), []);
}

#[test]
fn an_address_that_is_good_for_get_alone_will_do() {
    let place = Place::new();
    let other = Mirror::start();
    let odd = MirrorFile::large("data/ä #1%.jsonl", "odd");
    other.dataset(NAME, &files());
    other.fault(Fault::GetOnly);
    place.mirror.fault(Fault::Redirect(other.endpoint()));
    assert_eq!(place.fetch(LARGE).unwrap().len(), 9000 * 23);
    assert!(other.requests().iter().all(|request| request.authorization.is_none()));
    for fault in [Fault::None, Fault::GetOnly] {
        let place = Place::new();
        place.mirror.dataset(NAME, std::slice::from_ref(&odd));
        place.mirror.fault(fault);
        assert_eq!(place.fetch("data/ä #1%.jsonl").unwrap(), b"odd");
    }
}

#[test]
fn a_closed_door_says_what_opens_it_and_nothing_of_the_token() {
    for status in [401, 403] {
        let mut place = Place::new();
        place.mirror.fault(Fault::Refuse(status));
        let message = place.refusal(place.open());
        assert!(message.contains(&format!("{status} ")), "{message}");
        assert!(message.contains("no access with 'Bearer (the token)'"), "{message}");
        let page = format!(
            "accept the terms, if it has any, on {}/datasets/{NAME}",
            place.mirror.endpoint()
        );
        assert!(
            message.contains(&page) && message.contains("whose token is in HF_TOKEN"),
            "{message}"
        );
        place.settings.token = None;
        let message = place.refusal(place.open());
        assert!(message.contains(&page) && message.contains("set HF_TOKEN to it"), "{message}");
        assert_eq!(place.left(), Vec::<String>::new());
    }
}

#[test]
fn what_does_not_exist_is_answered_with_what_does() {
    let place = Place::new();
    let message = place.refusal(place.open_at(Some("v2")));
    assert!(
        message.contains("no revision `v2`") && message.contains("there is `main`"),
        "{message}"
    );
    let message = place.refusal(place.open_at(Some(&"0".repeat(40))));
    assert!(
        message.contains("no revision `0000") && message.contains("there is `main`"),
        "{message}"
    );
    let message = place.refusal(place.fetch("data/train.jsonl"));
    assert!(
        message.contains("`data/train.jsonl`")
            && message.contains(&format!("there is `{LARGE}`, `{SMALL}`"))
    );
    place.mirror.model("org/other", &[]);
    let open = |name: &str| {
        let repository = Repository::new(RepoKind::Dataset, name, "source.hub").unwrap();
        Snapshot::open_with(&place.settings, repository, None, &place).unwrap_err().to_string()
    };
    assert!(open("org/none").contains("hint: look at the spelling"), "{}", open("org/none"));
    assert!(
        open("org/other").contains("hint: there is a model of that name"),
        "{}",
        open("org/other")
    );
}

#[test]
fn a_warm_cache_does_without_the_server() {
    let mut place = Place::new();
    place.fetch(LARGE).unwrap();
    place.mirror.stop();
    for offline in [false, true] {
        place.settings.offline = offline;
        place.notes();
        let snapshot = place.open().unwrap();
        assert_eq!(snapshot.commit(), place.commit);
        assert_eq!(snapshot.files().unwrap().len(), 2);
        snapshot.fetch(LARGE, &place, &place.interrupted).unwrap();
        let warned = place
            .notes()
            .iter()
            .any(|note| note.contains("cannot be reached") && note.contains(&place.commit));
        assert_eq!(warned, !offline, "offline by choice is no news");
        let message = place.refusal(snapshot.fetch(SMALL, &place, &place.interrupted));
        assert!(message.contains("README.md is not in the cache"), "{message}");
    }
    // A commit always means the same.
    place.settings.offline = false;
    place.open_at(Some(&place.commit)).unwrap().fetch(LARGE, &place, &place.interrupted).unwrap();
}

#[test]
fn a_cold_cache_without_the_server_says_what_is_missing() {
    let mut place = Place::new();
    place.settings.offline = true;
    let message = place.refusal(place.open());
    assert!(
        message.contains("`main` is not in the cache") && message.contains("HF_HUB_OFFLINE"),
        "{message}"
    );
    assert_eq!(place.mirror.requests(), [], "offline means that nobody is asked");
    place.settings.offline = false;
    place.mirror.stop();
    let message = place.refusal(place.open());
    assert!(
        message.contains("cannot be reached") && message.contains(&place.mirror.endpoint()),
        "{message}"
    );
    assert_eq!(place.left(), Vec::<String>::new());
}

/// As Hugging Face's own tools leave it: blobs, a snapshot of links, a ref, and no tree.
fn fetched_by_another_tool(place: &Place) {
    let root = place.folder.path().join("home/hub/datasets--org--texts");
    let snapshot = root.join("snapshots").join(&place.commit);
    for folder in ["refs", "blobs"] {
        std::fs::create_dir_all(root.join(folder)).unwrap();
    }
    std::fs::create_dir_all(snapshot.join("data")).unwrap();
    let blob = format!("blobs/{}", files()[0].oid());
    std::fs::write(root.join("refs/main"), &place.commit).unwrap();
    std::fs::write(root.join(&blob), "{\"text\": \"some words\"}\n".repeat(9000)).unwrap();
    std::os::unix::fs::symlink(format!("../../../{blob}"), snapshot.join(LARGE)).unwrap();
}

#[test]
fn what_another_tool_fetched_is_found() {
    let mut place = Place::new();
    fetched_by_another_tool(&place);
    place.fetch(LARGE).unwrap();
    assert!(place.mirror.requests().iter().all(|request| !request.path.contains("/resolve/")));

    let mut place = (Place::new(), place.mirror.stop()).0;
    fetched_by_another_tool(&place);
    place.settings.offline = true;
    let snapshot = place.open().unwrap();
    snapshot.fetch(LARGE, &place, &place.interrupted).unwrap();
    let message = place.refusal(snapshot.files().map(|files| files.len()));
    assert!(
        message.contains("not known without the network"),
        "some of a data set is not the data set: {message}"
    );
}

#[test]
fn a_damaged_file_in_the_cache_is_removed_and_fetched_again() {
    let place = Place::new();
    place.fetch(LARGE).unwrap();
    let blob =
        place.folder.path().join("home/hub/datasets--org--texts/blobs").join(files()[0].oid());
    for damage in [b"short".to_vec(), vec![b'x'; 9000 * 23]] {
        std::fs::write(&blob, damage).unwrap();
        assert!(place.fetch(LARGE).unwrap().starts_with(b"{\"text\""));
        let notes = place.notes();
        assert!(
            notes.iter().any(|note| note.contains("in the cache is damaged, and removed")),
            "{notes:?}"
        );
    }
}

#[test]
fn a_link_to_somebody_elses_file_is_replaced_and_the_file_left_alone() {
    let place = Place::new();
    place.fetch(LARGE).unwrap();
    let mine = place.folder.path().join("mine.txt");
    std::fs::write(&mine, "mine").unwrap();
    let pointer = place.open().unwrap().fetch(LARGE, &place, &place.interrupted).unwrap();
    std::fs::remove_file(&pointer).unwrap();
    std::os::unix::fs::symlink(&mine, &pointer).unwrap();
    assert!(place.fetch(LARGE).unwrap().starts_with(b"{\"text\""));
    assert_eq!(std::fs::read(&mine).unwrap(), b"mine");
}

#[test]
fn an_interruption_leaves_nothing_behind() {
    let mut place = Place::new();
    place.interrupts = true;
    assert!(matches!(place.fetch(LARGE), Err(DataError::Interrupted)));
    assert_eq!(place.left(), place.known());
}

#[test]
fn what_a_killed_process_began_is_begun_anew_and_removed() {
    let place = Place::new();
    let blobs = place.folder.path().join("home/hub/datasets--org--texts/blobs");
    std::fs::create_dir_all(&blobs).unwrap();
    let part = blobs.join(format!(".{}.1-0.part", files()[0].oid()));
    std::fs::write(&part, "half").unwrap();
    place.fetch(LARGE).unwrap();
    assert!(!part.exists());
}

#[test]
fn many_that_want_one_file_fetch_it_once() {
    let place = Place::new();
    place.open().unwrap();
    place.mirror.requests();
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| assert_eq!(place.fetch(LARGE).unwrap().len(), 9000 * 23));
        }
    });
    let gets = place.mirror.requests();
    let gets =
        gets.iter().filter(|request| request.method == "GET" && request.path.contains("/resolve/"));
    assert_eq!(gets.count(), 1);
}

#[test]
fn a_revision_that_moves_is_followed_and_a_commit_is_not() {
    let place = Place::new();
    let first = place.commit.clone();
    let newer = place.mirror.dataset(NAME, &[MirrorFile::small(SMALL, "# New\n")]);
    assert_eq!(place.open().unwrap().commit(), newer);
    assert_eq!(place.fetch(SMALL).unwrap(), b"# New\n");
    let old = place.open_at(Some(&first)).unwrap();
    let path = old.fetch(SMALL, &place, &place.interrupted).unwrap();
    assert_eq!(std::fs::read(path).unwrap(), b"# Texts\n");
}

#[test]
fn a_model_is_fetched_whole_and_nothing_else_of_its_repository() {
    let place = Place::new();
    let index = r#"{"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors", "c": "model-1.safetensors"}}"#;
    let names = [
        "config.json",
        "model-1.safetensors",
        "model-2.safetensors",
        "pytorch_model.bin",
        "tokenizer.json",
    ];
    let mut files: Vec<MirrorFile> =
        names.iter().map(|name| MirrorFile::large(name, *name)).collect();
    files.push(MirrorFile::small("model.safetensors.index.json", index));
    place.mirror.model("org/model", &files);
    let open = |name: &str| {
        let repository = Repository::new(RepoKind::Model, name, "model.init").unwrap();
        Snapshot::open_with(&place.settings, repository, None, &place).unwrap()
    };
    let folder = fetch_llama(&open("org/model"), &place, &place.interrupted).unwrap();
    let mut there: Vec<String> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    there.sort();
    assert_eq!(
        there,
        [
            "config.json",
            "model-1.safetensors",
            "model-2.safetensors",
            "model.safetensors.index.json",
            "tokenizer.json"
        ]
    );
    place.mirror.model("org/old", &[files[0].clone(), files[3].clone()]);
    let message =
        fetch_llama(&open("org/old"), &place, &place.interrupted).unwrap_err().to_string();
    assert!(
        message.contains("`model.safetensors`") && message.contains("`pytorch_model.bin`"),
        "{message}"
    );
}
