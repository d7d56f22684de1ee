//! The kernels' sources, `cuda/*.cu`, one concept a file, and the headers that they include.

/// A file of the folder `cuda`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Source {
    /// Its name; of a source of kernels, without the ending.
    pub(super) name: &'static str,
    /// What is in it.
    pub(super) text: &'static str,
}

macro_rules! files {
    ($ending:literal: $($name:literal)*) => {
        [$(Source { name: $name, text: include_str!(concat!("../../cuda/", $name, $ending)) }),*]
    };
}

/// What sources may include, under these names.
pub(super) static HEADERS: [Source; 3] = files! { "":
    "attention.h"
    "device.h"
    "vectors.h"
};

/// All sources of kernels.
pub(super) static SOURCES: &[Source] = &files! { ".cu":
    "attention"
    "attention_backward"
    "attention_delta"
    "attention_plain"
    "bias"
    "embedding"
    "head"
    "head_norm"
    "kv_cache"
    "muon"
    "norm"
    "optimizer"
    "reduce"
    "rotate"
    "swiglu"
};

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn files_that_end(ending: &str) -> Vec<String> {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/cuda");
        let entries = std::fs::read_dir(folder).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.filter(|name| name.ends_with(ending)).collect();
        names.sort();
        names
    }

    #[test]
    fn every_file_of_the_folder_is_a_row_of_its_table() {
        let sources: Vec<_> = SOURCES.iter().map(|source| format!("{}.cu", source.name)).collect();
        assert_eq!(files_that_end(".cu"), sources);
        assert_eq!(files_that_end(".h"), HEADERS.map(|header| header.name));
    }

    #[test]
    fn a_source_includes_headers_of_the_table_alone() {
        for source in SOURCES.iter().chain(&HEADERS) {
            // What stands in for a GPU is the emulator's.
            for include in source.text.lines().filter(|line| line.starts_with("#include")) {
                let known =
                    HEADERS.iter().any(|header| include.contains(&format!("\"{}\"", header.name)));
                assert!(known || include.contains("\"on_cpu.h\""), "{}: {include}", source.name);
            }
        }
    }
}
