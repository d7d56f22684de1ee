//! `[log]`: which other programs are told.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Which other programs a run tells while it trains. `metrics.jsonl` is written whatever it says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogSpec {
    /// TensorBoard: event files in the run's folder.
    pub tensorboard: bool,
    /// Trackio: the project that the run belongs to.
    pub trackio: TrackioProject,
    /// Trackio's folder. Default: its own, `TRACKIO_DIR`, else `trackio` in Hugging Face's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trackio_dir: Option<PathBuf>,
}

impl Default for LogSpec {
    fn default() -> Self {
        Self { tensorboard: true, trackio: TrackioProject::None, trackio_dir: None }
    }
}

/// `trackio`: `false`, or the name of a project.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub enum TrackioProject {
    /// Trackio is told nothing.
    #[default]
    None,
    /// A project's name.
    Named(String),
}

/// The key as it is written.
#[derive(Serialize, Deserialize)]
#[serde(untagged, expecting = "false, or the name of a project in quotes")]
enum Written {
    Switch(bool),
    Name(String),
}

impl TryFrom<Written> for TrackioProject {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        let expected = "expected false, or the name of a project in quotes";
        match written {
            Written::Switch(false) => Ok(Self::None),
            Written::Switch(true) => Err(format!("{expected}; found true, which names none")),
            // Trackio's files are named by these characters of the project's name alone.
            Written::Name(name) if name.contains(|c: char| c.is_alphanumeric()) => {
                Ok(Self::Named(name))
            }
            Written::Name(name) => {
                Err(format!("{expected}; found {name:?}, which has no letter and no digit"))
            }
        }
    }
}

impl From<TrackioProject> for Written {
    fn from(project: TrackioProject) -> Self {
        match project {
            TrackioProject::None => Written::Switch(false),
            TrackioProject::Named(name) => Written::Name(name),
        }
    }
}
