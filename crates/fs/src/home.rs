//! Where programs keep their files, by the variables that they read.

use std::ffi::OsString;
use std::path::PathBuf;

/// The folder that a variable names, a leading `~` written out; `None` where it is not set, or to
/// nothing. `variable` looks one up.
pub fn named_folder(name: &str, variable: &impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let value = variable(name).filter(|value| !value.is_empty())?;
    Some(expanded(PathBuf::from(value), variable))
}

/// `HF_HOME`, else `huggingface` in the user's cache folder.
pub fn hugging_face_home(variable: &impl Fn(&str) -> Option<OsString>) -> PathBuf {
    named_folder("HF_HOME", variable).unwrap_or_else(|| cache_home(variable).join("huggingface"))
}

/// The user's cache folder: `XDG_CACHE_HOME`, else `~/.cache`.
pub fn cache_home(variable: &impl Fn(&str) -> Option<OsString>) -> PathBuf {
    named_folder("XDG_CACHE_HOME", variable)
        .unwrap_or_else(|| expanded(PathBuf::from("~/.cache"), variable))
}

fn expanded(path: PathBuf, variable: &impl Fn(&str) -> Option<OsString>) -> PathBuf {
    let Ok(rest) = path.strip_prefix("~") else { return path };
    let user = variable("HOME").filter(|home| !home.is_empty());
    match user.map(PathBuf::from).or_else(std::env::home_dir) {
        Some(user) => user.join(rest),
        None => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home(variables: &[(&str, &str)]) -> PathBuf {
        hugging_face_home(&|name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| OsString::from(value))
        })
    }

    #[test]
    fn hugging_faces_home_is_where_its_own_programs_look() {
        for (variables, expected) in [
            (&[("HOME", "/h")][..], "/h/.cache/huggingface"),
            (&[("HOME", "/h"), ("XDG_CACHE_HOME", "/x")], "/x/huggingface"),
            (&[("HOME", "/h"), ("HF_HOME", "~/hf"), ("XDG_CACHE_HOME", "/x")], "/h/hf"),
            (&[("HOME", "/h"), ("HF_HOME", ""), ("XDG_CACHE_HOME", "")], "/h/.cache/huggingface"),
        ] {
            assert_eq!(home(variables), PathBuf::from(expected), "{variables:?}");
        }
    }
}
