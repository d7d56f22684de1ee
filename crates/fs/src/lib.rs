//! Files and folders that are replaced whole or not at all, and locks between processes.
//!
//! Everything durable is written the same way: under a temporary name beside its target, synced,
//! renamed, and the folder synced. A reader so never sees half a file, and a reader that has mapped
//! the old one keeps it.
//!
//! | file | what it does |
//! | --- | --- |
//! | `file` | one file: [`write_file`], [`rename_new_file`], [`remove_file`] and their like |
//! | `folder` | a folder: [`replace_folder`], [`remove_folder`], [`sweep_folders`] |
//! | `sync` | waiting for the disk: [`sync_file`], [`sync_folder`] |
//! | `space` | room on a disk: [`free_space`], [`is_full`] |
//! | `path` | temporary names beside a path: [`unique_neighbour`] |
//! | `home` | folders of the user's: [`cache_home`], [`hugging_face_home`] |
//! | `lock` | one writer at a time: [`try_lock`], [`wait_for_lock`] |
//!
//! ```
//! # let folder = tempfile::tempdir()?;
//! let path = folder.path().join("note.txt");
//! cuvee_fs::write_file(&path, b"whole")?;
//! assert_eq!(std::fs::read(&path)?, b"whole");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod error;
mod file;
mod folder;
mod home;
mod lock;
mod path;
mod space;
mod sync;

pub use error::{FsError, Result};
pub use file::{
    remove_file, rename_file, rename_new_file, write_file, write_file_concurrently, write_file_with,
};
pub use folder::{remove_folder, replace_folder, sweep_folders};
pub use home::{cache_home, hugging_face_home, named_folder};
pub use lock::{FileLock, LockKind, try_lock, wait_for_lock};
pub use path::{create_parent, unique_neighbour};
pub use space::{free_space, is_full};
pub use sync::{sync_file, sync_folder};
