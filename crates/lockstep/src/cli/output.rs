//! What a command prints: one JSON object, or a few lines for people. Notes and failures go to
//! standard error; with `--json` a failure is an object on standard output too.

use crate::errors::{Failure, Outcome};
use serde_json::Value;
use std::io::Write;
use std::process::ExitCode;

/// How a command answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Output {
    /// Whether `--json` was given.
    pub json: bool,
}

impl Output {
    /// Prints how a command ended; `text` is what people read.
    pub fn finish(self, outcome: Outcome<Value>, text: fn(&Value) -> String) -> ExitCode {
        match outcome {
            Ok(value) => {
                self.success(value, text);
                ExitCode::SUCCESS
            }
            Err(failure) => self.failure(&failure),
        }
    }

    /// Prints the answer of a command that went well.
    pub fn success(self, mut value: Value, text: fn(&Value) -> String) {
        for note in take_notes(&mut value) {
            say_error(&format!("lockstep: {note}\n"));
        }
        if self.json {
            say(&format!("{value}\n"));
        } else {
            say(&text(&value));
        }
    }

    /// Prints why a command failed.
    pub fn failure(self, failure: &Failure) -> ExitCode {
        if self.json {
            say(&format!("{}\n", failure.to_json()));
        }
        say_error(&format!("{}{failure}\n", crate::daemon::launch::LAST_WORDS));
        ExitCode::from(failure.exit_code())
    }
}

/// Writes to standard output. A reader that has gone is no failure of the command.
pub fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Writes to standard error.
pub fn say_error(text: &str) {
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

/// Remarks travel beside the answer, not in it: the printed object has exactly the promised fields.
fn take_notes(value: &mut Value) -> Vec<String> {
    let notes = value.as_object_mut().and_then(|object| object.remove("notes"));
    let notes = notes.unwrap_or_default();
    let each = notes.as_array().into_iter().flatten();
    each.filter_map(|note| note.as_str().map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_no_part_of_the_object() {
        let mut value = serde_json::json!({"a": 1, "notes": ["x", "y"]});
        assert_eq!(take_notes(&mut value), ["x", "y"]);
        assert_eq!(value, serde_json::json!({"a": 1}));
        assert!(take_notes(&mut value).is_empty());
    }
}
