//! The card of a data set, which is the header of its README: which configurations it has, and
//! which files each of their splits is made of.

use serde::Deserialize;

use crate::spec::OneOrMany;

/// What a README's header says of one configuration.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct Config {
    pub(crate) config_name: String,
    pub(crate) data_files: Option<DataFiles>,
    /// The folder that the patterns of `data_files` start from.
    pub(crate) data_dir: Option<String>,
    /// Whether it is meant where none is named.
    pub(crate) default: bool,
}

/// Patterns of a configuration's files.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged)]
pub(crate) enum DataFiles {
    /// All of it is the split `train`.
    Train(OneOrMany<String>),
    /// Each split by its name.
    Splits(Vec<SplitFiles>),
}

/// Patterns of one split's files.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct SplitFiles {
    pub(crate) split: String,
    pub(crate) path: OneOrMany<String>,
}

/// The configurations in a README's header, which is YAML between two lines of `---`. None where
/// there is no header.
pub(crate) fn configs(readme: &str) -> std::result::Result<Vec<Config>, String> {
    #[derive(Deserialize)]
    struct Header {
        #[serde(default)]
        configs: Vec<Config>,
    }
    let readme = readme.trim_start_matches('\u{feff}').replace("\r\n", "\n");
    let header = readme.strip_prefix("---\n").and_then(|rest| rest.split_once("\n---"));
    let Some((header, _)) = header else { return Ok(Vec::new()) };
    // The first line says what is wrong; the parser's others show the text around it.
    let first = |text: String| text.lines().next().unwrap_or_default().to_owned();
    let header: Header =
        serde_saphyr::from_str(header).map_err(|error| first(error.to_string()))?;
    Ok(header.configs)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn a_header_that_is_none_lists_nothing_and_a_broken_one_says_so() {
        for none in ["", "# Title", "---\nlicense: mit\n---\n", "---\nconfigs: []\n"] {
            assert_eq!(configs(none), Ok(Vec::new()), "{none}");
        }
        assert!(configs("---\nconfigs: [{\n---\n").is_err());
    }

    #[test]
    fn names_are_text_also_where_yaml_might_see_something_else() {
        let header =
            "---\nconfigs:\n- config_name: no\n- config_name: 2024\n- config_name: 1e3\n---\n";
        let names: Vec<String> =
            configs(header).unwrap().into_iter().map(|config| config.config_name).collect();
        assert_eq!(names, ["no", "2024", "1e3"]);
    }
}
