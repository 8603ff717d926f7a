//! What a user is told when a command fails: the thing and the reason, the next step, and an exit
//! code that scripts can rely on.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Whose turn it is to change something.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fault {
    /// The command line cannot be meant: exit code 2.
    Usage,
    /// The command was understood and could not be carried out: exit code 1.
    Failed,
    /// Nothing was done because another daemon of the home is coming or going: asking again helps.
    Early,
    /// There is a daemon, and it does not answer: exit code 1.
    Silent,
}

/// A refused or failed command. It crosses the control socket, so it is plain text.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, thiserror::Error)]
pub struct Failure {
    fault: Fault,
    message: String,
    hint: String,
}

/// What a command gives back.
pub type Outcome<T> = Result<T, Failure>;

impl Failure {
    /// The arguments make no sense. `message` names the thing and the reason, `hint` the next step.
    pub fn usage(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Failure { fault: Fault::Usage, message: message.into(), hint: hint.into() }
    }

    /// The command failed. `message` names the thing and the reason, `hint` the next step.
    pub fn failed(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Failure { fault: Fault::Failed, message: message.into(), hint: hint.into() }
    }

    /// Nothing was done, and asking again may help at once.
    pub fn early(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Failure { fault: Fault::Early, message: message.into(), hint: hint.into() }
    }

    /// The daemon does not answer.
    pub fn silent(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Failure { fault: Fault::Silent, message: message.into(), hint: hint.into() }
    }

    /// Whether the daemon does not answer.
    pub fn is_silent(&self) -> bool {
        self.fault == Fault::Silent
    }

    /// Whether nothing was done and asking again may help at once.
    pub fn is_early(&self) -> bool {
        self.fault == Fault::Early
    }

    /// A failure told in one sentence, whose last clause is the next step.
    pub fn of_sentence(text: &str) -> Self {
        let (message, hint) = text.rsplit_once("; ").unwrap_or((text, ""));
        Failure::failed(message, hint)
    }

    /// A failed system call on `path`.
    pub fn io(doing: &str, path: &std::path::Path, reason: &std::io::Error, hint: &str) -> Self {
        Failure::failed(format!("cannot {doing} {}: {reason}", path.display()), hint)
    }

    /// The same failure with another sentence of advice at the end.
    pub fn advise(mut self, further: &str) -> Self {
        if !self.hint.is_empty() {
            self.hint.push_str("; ");
        }
        self.hint.push_str(further);
        self
    }

    /// The same failure, with what was being done in front.
    pub fn during(mut self, doing: &str) -> Self {
        self.message = format!("{doing}: {}", self.message);
        self
    }

    /// What went wrong.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Everything in one line, for logs, for `status` and for peers.
    pub fn one_line(&self) -> String {
        if self.hint.is_empty() {
            self.message.clone()
        } else {
            format!("{}; {}", self.message, self.hint)
        }
    }

    /// The exit code of a command that ends with this failure.
    pub fn exit_code(&self) -> u8 {
        match self.fault {
            Fault::Usage => 2,
            Fault::Failed | Fault::Early | Fault::Silent => 1,
        }
    }

    /// The object that `--json` prints.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!({ "error": { "message": self.message, "hint": self.hint } })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if self.hint.is_empty() { Ok(()) } else { write!(f, "\n  next step: {}", self.hint) }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        let mut text = String::new();
        for cause in error.chain().map(ToString::to_string) {
            // Most messages name their cause, and the next step behind it.
            if !text.contains(&cause) {
                let colon = if text.is_empty() { "" } else { ": " };
                text = format!("{text}{colon}{cause}");
            }
        }
        Failure::of_sentence(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_tell_usage_from_failure() {
        assert_eq!(Failure::usage("m", "h").exit_code(), 2);
        assert_eq!(Failure::failed("m", "h").exit_code(), 1);
    }

    #[test]
    fn a_cause_is_told_once() {
        let cause = std::io::Error::from_raw_os_error(28);
        let said = anyhow::Error::new(cause)
            .context("cannot open D: No space left on device (os error 28); make room");
        let failure = Failure::from(said.context("cannot open the volume"));
        let whole = "cannot open the volume: cannot open D: No space left on device (os error 28); make room";
        assert_eq!(failure.one_line(), whole);
        let untold =
            anyhow::Error::new(std::io::Error::from_raw_os_error(28)).context("cannot write");
        assert_eq!(
            Failure::from(untold).message(),
            "cannot write: No space left on device (os error 28)"
        );
    }

    #[test]
    fn advice_is_appended_and_shown_last() {
        let failure = Failure::failed("cannot do it", "try this").advise("or that");
        assert_eq!(failure.to_string(), "cannot do it\n  next step: try this; or that");
        assert_eq!(
            failure.to_json(),
            serde_json::json!({"error": {"message": "cannot do it", "hint": "try this; or that"}})
        );
    }
}
