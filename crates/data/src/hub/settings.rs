//! What the environment says about the Hub: where it is, where its cache lies, who is asking.
//!
//! The variables are those of Hugging Face's own tools. They are read here and handed on: `hf-hub`
//! itself never looks at `HF_HUB_OFFLINE`, and will stop reading the others.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use reqwest::Url;

use crate::error::{DataError, Result};

/// Where the Hub is unless `HF_ENDPOINT` says otherwise.
const ENDPOINT: &str = "https://huggingface.co";

/// How the Hub is reached.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    /// `HF_ENDPOINT`
    pub(super) endpoint: Url,
    /// `HF_HUB_CACHE`, else `$HF_HOME/hub`
    pub(super) cache: PathBuf,
    /// `HF_TOKEN`, else what `HF_TOKEN_PATH` or `$HF_HOME/token` holds
    pub(super) token: Option<Token>,
    /// `HF_HUB_OFFLINE`
    pub(super) offline: bool,
}

/// A secret that no message, log or file may hold: it has no `Display`, and its `Debug` says
/// nothing.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Token(String);

impl Token {
    /// The secret itself, for the request it belongs in.
    pub(super) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

impl Settings {
    /// Reads the environment.
    ///
    /// # Errors
    /// `HF_ENDPOINT` is no address, or a token has characters that no header can carry.
    pub(super) fn from_environment() -> Result<Settings> {
        Settings::from_variables(|name| std::env::var_os(name))
    }

    pub(super) fn from_variables(variable: impl Fn(&str) -> Option<OsString>) -> Result<Settings> {
        // A variable that is set to nothing counts as not set.
        let get = |name: &str| variable(name).filter(|value| !value.is_empty());
        let text = |name: &str| get(name).map(|value| value.to_string_lossy().trim().to_owned());
        let folder = |name: &str| cuvee_fs::named_folder(name, &variable);
        let home = cuvee_fs::hugging_face_home(&variable);
        let cache = folder("HF_HUB_CACHE").or_else(|| folder("HUGGINGFACE_HUB_CACHE"));
        let truthy = |name: &str| {
            let value = text(name).unwrap_or_default().to_ascii_lowercase();
            matches!(value.as_str(), "1" | "on" | "yes" | "true")
        };
        let file =
            |path: PathBuf| std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
        let token = || {
            text("HF_TOKEN")
                .or_else(|| folder("HF_TOKEN_PATH").and_then(file))
                .or_else(|| file(home.join("token")))
                .filter(|token| !token.is_empty())
        };
        Ok(Settings {
            endpoint: endpoint(text("HF_ENDPOINT"))?,
            cache: cache.unwrap_or_else(|| home.join("hub")),
            token: match truthy("HF_HUB_DISABLE_IMPLICIT_TOKEN") {
                true => None,
                false => token().map(sendable).transpose()?,
            },
            offline: truthy("HF_HUB_OFFLINE"),
        })
    }
}

fn endpoint(typed: Option<String>) -> Result<Url> {
    let typed = typed.unwrap_or_else(|| ENDPOINT.to_owned());
    let url = Url::parse(typed.trim_end_matches('/')).ok();
    let usable = |url: &Url| matches!(url.scheme(), "http" | "https") && url.host().is_some();
    // A password in an address would show wherever the address does.
    let open = |url: &Url| url.username().is_empty() && url.password().is_none();
    url.filter(usable).filter(open).ok_or_else(|| DataError::Spec {
        key: "HF_ENDPOINT".to_owned(),
        expected: "an address that starts with https:// or http://, without a user name".to_owned(),
        found: "something else".to_owned(),
        hint: format!("unset it to use {ENDPOINT}"),
    })
}

fn sendable(token: String) -> Result<Token> {
    if token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(Token(token));
    }
    Err(DataError::Spec {
        key: "HF_TOKEN".to_owned(),
        expected: "a token of visible ASCII characters".to_owned(),
        // Not the value: it is a secret all the same.
        found: "other characters in it".to_owned(),
        hint: "copy it again from the Hub's settings, without quotes or line ends".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Settings> {
        Settings::from_variables(|name| {
            variables
                .iter()
                .find(|(known, _)| *known == name)
                .map(|(_, value)| OsString::from(value))
        })
    }

    #[test]
    fn the_cache_is_where_other_tools_have_it() {
        let cache = |variables: &[(&str, &str)]| read(variables).unwrap().cache;
        assert_eq!(cache(&[("HOME", "/h")]), PathBuf::from("/h/.cache/huggingface/hub"));
        assert_eq!(
            cache(&[("HOME", "/h"), ("XDG_CACHE_HOME", "/x")]),
            PathBuf::from("/x/huggingface/hub")
        );
        assert_eq!(cache(&[("HOME", "/h"), ("HF_HOME", "~/hf")]), PathBuf::from("/h/hf/hub"));
        assert_eq!(cache(&[("HF_HOME", "/hf"), ("HF_HUB_CACHE", "/c")]), PathBuf::from("/c"));
        assert_eq!(cache(&[("HF_HOME", "/hf"), ("HF_HUB_CACHE", "")]), PathBuf::from("/hf/hub"));
    }

    #[test]
    fn the_token_comes_from_the_variable_else_a_file_and_is_never_shown() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().to_str().unwrap();
        std::fs::write(home.path().join("token"), "hf_of_the_home\n").unwrap();
        std::fs::write(home.path().join("other"), "hf_of_the_path\n").unwrap();
        let other = home.path().join("other").to_str().unwrap().to_owned();
        let token = |more: &[(&str, &str)]| {
            let settings = read(&[&[("HF_HOME", folder)], more].concat()).unwrap();
            assert!(!format!("{settings:?}").contains("hf_of"), "{settings:?}");
            settings.token.map(|token| token.reveal().to_owned())
        };
        assert_eq!(token(&[]).unwrap(), "hf_of_the_home");
        assert_eq!(token(&[("HF_TOKEN_PATH", &other)]).unwrap(), "hf_of_the_path");
        assert_eq!(token(&[("HF_TOKEN", " hf_of_the_variable ")]).unwrap(), "hf_of_the_variable");
        assert_eq!(token(&[("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")]), None);
        let error = read(&[("HF_TOKEN", "hf_of\nlines")]).unwrap_err().to_string();
        assert!(error.contains("HF_TOKEN") && !error.contains("hf_of"), "{error}");
    }

    #[test]
    fn an_endpoint_is_an_address_without_a_password() {
        let url = |endpoint: &str| read(&[("HF_ENDPOINT", endpoint)]);
        assert_eq!(url("").unwrap().endpoint.as_str(), "https://huggingface.co/");
        assert_eq!(
            url("http://127.0.0.1:8080/").unwrap().endpoint.as_str(),
            "http://127.0.0.1:8080/"
        );
        for wrong in ["huggingface.co", "ftp://a", "https://me:secret@a", "file:///etc"] {
            let error = url(wrong).unwrap_err().to_string();
            assert!(error.contains("HF_ENDPOINT") && !error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn offline_is_what_hugging_faces_tools_take_for_true() {
        for (value, offline) in
            [("1", true), ("TRUE", true), ("yes", true), ("0", false), ("", false)]
        {
            assert_eq!(read(&[("HF_HUB_OFFLINE", value)]).unwrap().offline, offline, "{value}");
        }
    }
}
