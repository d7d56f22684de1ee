//! The sources of the packages that Cargo has unpacked on this machine, as a corpus that needs no
//! download.
//!
//! In: the workspace around the config, or around the current folder. Out: the files of one kind of
//! each registry package that `cargo metadata --offline` knows and that is unpacked, sorted by
//! package and path. Left out: licence texts (the same few, again and again), files over 120 kB
//! (tables), hidden files. The registry's folder is never guessed: packages lie where Cargo says
//! they do.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package};
use cuvee_words::printable_path;
use serde_json::json;
use walkdir::WalkDir;

use super::file::{Found, PackageName, SourceFile};
use super::files;
use crate::error::{DataError, Result};
use crate::format::Format;
use crate::shard::manifest::FileRecord;
use crate::spec::CargoKind;

/// Longer files are mostly generated.
const MAX_FILE: u64 = 120_000;

impl CargoKind {
    fn takes(self, name: &str) -> bool {
        let endings: &[&str] = match self {
            CargoKind::Rust => &[".rs"],
            CargoKind::Docs => &[".md"],
            CargoKind::C => &[".c", ".h"],
        };
        let licences = ["license", "licence", "copying", "notice", "unlicense", "copyright"];
        let lower = name.to_ascii_lowercase();
        endings.iter().any(|ending| lower.ends_with(ending))
            && !licences.iter().any(|licence| lower.starts_with(licence))
    }
}

/// Finds the files of a kind, and the workspace that they are found from.
///
/// # Errors
/// There is no workspace, Cargo does not run, or no package is unpacked.
pub(super) fn find(kind: CargoKind, base: &Path) -> Result<(Found, PathBuf)> {
    let manifest = workspace_manifest(base)?;
    let root = manifest.parent().unwrap_or(base).to_owned();
    let mut packages = packages(&manifest)?;
    packages.retain(|package| {
        package.source.as_ref().is_some_and(is_registry) && package.manifest_path.is_file()
    });
    packages.sort_by(|a, b| (a.name.as_str(), &a.version).cmp(&(b.name.as_str(), &b.version)));
    let mut found = Found::default();
    let mut licenses = BTreeSet::new();
    for package in &packages {
        if add(package, kind, &mut found)? {
            licenses.insert(license(package));
        }
    }
    if found.files.is_empty() {
        return Err(DataError::Cargo {
            message: format!(
                "expected files of kind {kind:?} in the unpacked dependencies of {}, found none in \
                 {} packages",
                printable_path(manifest),
                packages.len()
            ),
        });
    }
    found.license = Some(licenses.into_iter().collect::<Vec<_>>().join("; "));
    Ok((found, root))
}

/// Adds a package's files; whether there were any.
fn add(package: &Package, kind: CargoKind, found: &mut Found) -> Result<bool> {
    let Some(folder) = package.manifest_path.parent() else { return Ok(false) };
    let (mut bytes, mut newest) = (0u64, std::time::UNIX_EPOCH);
    let before = found.files.len();
    let entries = WalkDir::new(folder)
        .sort_by_file_name()
        .into_iter()
        .filter_entry(|e| e.depth() == 0 || !e.file_name().to_string_lossy().starts_with('.'));
    for entry in entries {
        let unreadable = |error: walkdir::Error| {
            let path = error.path().unwrap_or(folder.as_std_path()).to_owned();
            DataError::io("read", &path)(error.into())
        };
        let entry = entry.map_err(unreadable)?;
        if !entry.file_type().is_file() || !kind.takes(&entry.file_name().to_string_lossy()) {
            continue;
        }
        let metadata = entry.metadata().map_err(unreadable)?;
        if metadata.len() > MAX_FILE {
            continue;
        }
        let relative = entry.path().strip_prefix(folder).unwrap_or(entry.path());
        found.files.push(SourceFile {
            path: entry.path().to_owned(),
            format: Format::TXT,
            bytes: metadata.len(),
            label: format!("{}/{}", package.name, relative.display()),
            package: Some(PackageName {
                name: package.name.to_string(),
                license: license(package),
            }),
        });
        bytes += metadata.len();
        newest = newest.max(metadata.modified().unwrap_or(std::time::UNIX_EPOCH));
    }
    if found.files.len() == before {
        return Ok(false);
    }
    found.records.push(FileRecord {
        path: PathBuf::from(format!("{}-{}", package.name, package.version)),
        bytes,
        modified: files::nanoseconds(newest),
        oid: None,
    });
    Ok(true)
}

fn license(package: &Package) -> String {
    package.license.clone().unwrap_or_else(|| "unknown".to_owned())
}

/// The nearest `Cargo.toml` in or above the config's folder, else in or above the current one.
fn workspace_manifest(base: &Path) -> Result<PathBuf> {
    let current = std::env::current_dir().ok();
    let base = std::path::absolute(base).ok();
    let above = |folder: &PathBuf| {
        folder.ancestors().map(|f| f.join("Cargo.toml")).find(|manifest| manifest.is_file())
    };
    base.iter().chain(&current).find_map(above).ok_or_else(|| DataError::Cargo {
        message: "expected a Cargo.toml in or above the config's folder or the current one, \
                  found none"
            .to_owned(),
    })
}

/// All packages of the workspace.
///
/// `cargo metadata --offline` asks for every package of the lock file to be there, also those of
/// other platforms and those that only tests need. A machine that has just built the program has
/// not fetched these; then Cargo is asked about what building needs.
fn packages(manifest: &Path) -> Result<Vec<Package>> {
    let root = manifest.parent().unwrap_or(manifest);
    // `--locked`: looking must not change anybody's lock file.
    metadata(root, manifest, &["--locked"])
        .or_else(|whole| needed_to_build(root, manifest).map_err(|_| whole))
        .map(|metadata| metadata.packages)
        .map_err(|message| DataError::Cargo { message })
}

/// Metadata of a stand-in package that depends on what the members depend on to be built on this
/// platform, optional dependencies aside, in the versions of the lock file.
fn needed_to_build(root: &Path, manifest: &Path) -> std::result::Result<Metadata, String> {
    let members = metadata(root, manifest, &["--no-deps"])?;
    // By name, version and platform: the features, and whether the default ones are wanted.
    let mut needed: BTreeMap<(String, String, String), (BTreeSet<String>, bool)> = BTreeMap::new();
    for dependency in members.packages.iter().flat_map(|package| &package.dependencies) {
        let fetched = dependency.source.as_ref().is_some_and(is_registry);
        if !fetched || dependency.optional || dependency.kind == DependencyKind::Development {
            continue;
        }
        let platform = dependency.target.as_ref().map(ToString::to_string).unwrap_or_default();
        let key = (dependency.name.clone(), dependency.req.to_string(), platform);
        let (features, default) = needed.entry(key).or_default();
        features.extend(dependency.features.iter().cloned());
        *default |= dependency.uses_default_features;
    }
    let mut toml = "[package]\nname = \"stand-in\"\nversion = \"0.0.0\"\nedition = \"2021\"\n\
                    [lib]\npath = \"lib.rs\"\n[workspace]\n"
        .to_owned();
    for (number, ((name, version, platform), (features, default))) in needed.iter().enumerate() {
        // JSON strings and lists of them are TOML too.
        let table = match platform.as_str() {
            "" => "dependencies".to_owned(),
            platform => format!("target.{}.dependencies", json!(platform)),
        };
        toml.push_str(&format!(
            "[{table}.d{number}]\npackage = {}\nversion = {}\nfeatures = {}\n\
             default-features = {default}\n",
            json!(name),
            json!(version),
            json!(features)
        ));
    }
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let stand_in = folder.path().join("Cargo.toml");
    let write = || {
        std::fs::write(&stand_in, toml)?;
        std::fs::write(folder.path().join("lib.rs"), "")?;
        std::fs::copy(root.join("Cargo.lock"), folder.path().join("Cargo.lock"))
    };
    write().map_err(|error| error.to_string())?;
    metadata(root, &stand_in, &["--filter-platform", &host_platform()?])
}

fn is_registry(source: &cargo_metadata::Source) -> bool {
    source.repr.starts_with("registry+") || source.repr.starts_with("sparse+")
}

fn host_platform() -> std::result::Result<String, String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc).arg("-vV").output().map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout);
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).ok_or_else(|| "rustc does not name its platform".to_owned())
}

/// Runs `cargo metadata --offline` in `folder`, so that its Cargo configuration holds.
fn metadata(
    folder: &Path,
    manifest: &Path,
    options: &[&str],
) -> std::result::Result<Metadata, String> {
    let mut command = MetadataCommand::new();
    command.current_dir(folder).manifest_path(manifest);
    let options = std::iter::once(&"--offline").chain(options);
    command.other_options(options.map(|option| (*option).to_owned()).collect::<Vec<_>>());
    command.exec().map_err(|error| format!("`cargo metadata --offline` failed: {error}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn kinds_take_their_files_and_no_licences() {
        for (name, rust, docs, c) in [
            ("lib.rs", true, false, false),
            ("README.md", false, true, false),
            ("zstd.h", false, false, true),
            ("ZSTD.C", false, false, true),
            ("LICENSE.md", false, false, false),
            ("license-mit.md", false, false, false),
            ("NOTICE.md", false, false, false),
            ("Cargo.toml", false, false, false),
        ] {
            let takes = [CargoKind::Rust, CargoKind::Docs, CargoKind::C].map(|k| k.takes(name));
            assert_eq!(takes, [rust, docs, c], "{name}");
        }
    }

    #[test]
    fn what_building_needs_is_part_of_what_the_workspace_has() {
        let root = cuvee_testkit::workspace_root();
        let manifest = root.join("Cargo.toml");
        let names = |packages: Vec<Package>| -> BTreeSet<String> {
            packages.iter().map(|package| package.name.to_string()).collect()
        };
        // Whoever runs this test has just built the workspace: all of it is there.
        let mut needed = names(needed_to_build(&root, &manifest).unwrap().packages);
        let all = names(packages(&manifest).unwrap());
        assert!(needed.remove("stand-in"));
        assert!(needed.is_subset(&all) && needed.contains("serde") && !needed.contains("proptest"));
    }

    #[test]
    fn no_workspace_is_an_error_with_a_hint() {
        // An unusable manifest: the folder above the system's temporary one has none, but the
        // current folder, that of this crate, does.
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("Cargo.toml"), "not = [toml").unwrap();
        let error = find(CargoKind::Rust, folder.path()).err().unwrap().to_string();
        assert!(error.contains("`cargo metadata --offline` failed"), "{error}");
        assert!(error.ends_with("hint: pass a config with your own files"), "{error}");
    }

    #[test]
    fn a_workspace_without_dependencies_has_no_files() {
        let folder = tempfile::tempdir().unwrap();
        let manifest = "[package]\nname = \"alone\"\nversion = \"0.0.0\"\n[workspace]\n";
        std::fs::write(folder.path().join("Cargo.toml"), manifest).unwrap();
        std::fs::create_dir(folder.path().join("src")).unwrap();
        std::fs::write(folder.path().join("src/lib.rs"), "").unwrap();
        let lock = "version = 4\n[[package]]\nname = \"alone\"\nversion = \"0.0.0\"\n";
        std::fs::write(folder.path().join("Cargo.lock"), lock).unwrap();
        let error = find(CargoKind::C, folder.path()).err().unwrap().to_string();
        assert!(error.contains("found none in 0 packages"), "{error}");
    }
}
