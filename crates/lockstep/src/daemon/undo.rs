//! Taking back what a command half did, last step first, unless the command ends well.

/// The way back. Dropping it goes it.
#[derive(Default)]
pub struct Undo {
    steps: Vec<Box<dyn FnOnce() + Send>>,
}

impl Undo {
    /// Remembers how to take back what was just done.
    pub fn push(&mut self, step: impl FnOnce() + Send + 'static) {
        self.steps.push(Box::new(step));
    }

    /// All went well: nothing is taken back.
    pub fn forget(mut self) {
        self.steps.clear();
    }
}

impl Drop for Undo {
    fn drop(&mut self) {
        while let Some(step) = self.steps.pop() {
            step();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Undo;
    use parking_lot::Mutex;
    use std::sync::Arc;

    #[test]
    fn the_last_step_is_taken_back_first_and_success_takes_back_nothing() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let run = |keep: bool| {
            let mut undo = Undo::default();
            for step in 1..=3 {
                let seen = Arc::clone(&seen);
                undo.push(move || seen.lock().push(step));
            }
            if keep {
                undo.forget();
            }
        };
        run(true);
        assert!(seen.lock().is_empty());
        run(false);
        assert_eq!(*seen.lock(), [3, 2, 1]);
    }
}
