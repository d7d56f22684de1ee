//! Hints behind causes.
//!
//! A message is lines of what happened, then possibly `hint: …`. A hint goes on over lines that are
//! indented or empty.

/// A chain of messages, the outermost first, as one text: what happened, joined by colons, each
/// cause once; then every hint, each once.
pub fn causes_then_hints(chain: impl IntoIterator<Item = String>) -> String {
    let (mut text, mut hints) = (String::new(), Vec::<String>::new());
    for message in chain {
        let (cause, own) = split(&message);
        // A cause that the outer message quotes already is not said again.
        if text.is_empty() {
            text = cause;
        } else if !cause.is_empty() && !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
        for hint in own {
            if !hints.contains(&hint) {
                hints.push(hint);
            }
        }
    }
    hints.iter().fold(text, |text, hint| format!("{text}\n{hint}"))
}

/// What happened, without the hints: for a message that goes on behind another's.
pub fn without_hints(message: &str) -> String {
    split(message).0
}

/// What happened, and the hints.
fn split(message: &str) -> (String, Vec<String>) {
    let (mut cause, mut hints) = (Vec::new(), Vec::<String>::new());
    let mut in_hint = false;
    for line in message.lines() {
        if line.starts_with("hint: ") {
            in_hint = true;
            hints.push(line.to_owned());
        } else if in_hint && (line.is_empty() || line.starts_with(' ')) {
            if let Some(hint) = hints.last_mut() {
                hint.push('\n');
                hint.push_str(line);
            }
        } else {
            in_hint = false;
            cause.push(line);
        }
    }
    (cause.join("\n"), hints)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(chain: &[&str]) -> String {
        causes_then_hints(chain.iter().map(|&message| message.to_owned()))
    }

    #[test]
    fn nothing_is_said_behind_a_hint() {
        assert_eq!(
            said(&["cannot make x\nhint: give --out", "denied\nhint: chmod", "os error 13"]),
            "cannot make x: denied: os error 13\nhint: give --out\nhint: chmod"
        );
        // A message that has taken another into itself, hint and all.
        assert_eq!(
            said(&["domain `a`: no file\nhint: look at the path\nand two more"]),
            "domain `a`: no file\nand two more\nhint: look at the path"
        );
    }

    #[test]
    fn causes_and_hints_are_said_once() {
        let inner = "no file\nhint: look";
        assert_eq!(
            said(&["domain `a`: no file\nhint: look", inner]),
            "domain `a`: no file\nhint: look"
        );
        assert_eq!(said(&["only this"]), "only this");
    }

    #[test]
    fn a_hint_may_have_indented_lines() {
        let message = "no domain\nhint: add\n\n  [[domain]]\n  name = \"mine\"";
        assert_eq!(said(&[message]), message);
        assert_eq!(said(&[message, "because"]), message.replace("no domain", "no domain: because"));
        assert_eq!(without_hints(message), "no domain");
    }
}
