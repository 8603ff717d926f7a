//! What the command line asks for.

use lockstep_sim::{Plan, VolumePlan};

/// See the documentation of the program.
#[derive(Debug, PartialEq, Eq)]
pub struct Options {
    /// First seed.
    pub from: u64,
    /// How many.
    pub seeds: u64,
    /// The only plan.
    plan: Option<String>,
    /// Failures printed for each plan.
    pub shown: u64,
    /// Every step is printed.
    pub trace: bool,
    /// Whole volumes run, not only replicas.
    pub volumes: bool,
}

impl Options {
    /// Reads the arguments; what cannot be understood is an error.
    pub fn of(args: impl IntoIterator<Item = String>) -> Result<Options, String> {
        let (from, seeds, shown) = (0, 10_000, 3);
        let mut options = Options { from, seeds, plan: None, shown, trace: false, volumes: false };
        let mut args = args.into_iter();
        while let Some(option) = args.next() {
            match option.as_str() {
                "--from" => options.from = number(&option, args.next())?,
                "--seeds" => options.seeds = number(&option, args.next())?,
                "--shown" => options.shown = number(&option, args.next())?,
                "--plan" => options.plan = Some(value(&option, args.next())?),
                "--trace" => options.trace = true,
                "--volumes" => options.volumes = true,
                _ => {
                    return Err(format!(
                        "unknown option {option}: there are --seeds N, --from S, --plan NAME, \
                         --shown N, --trace and --volumes"
                    ));
                }
            }
        }
        options.check_plan()?;
        Ok(options)
    }

    /// Whether the plan `name` is to run.
    pub fn has_plan(&self, name: &str) -> bool {
        self.plan.as_ref().is_none_or(|plan| plan == name)
    }

    fn check_plan(&self) -> Result<(), String> {
        let names: Vec<&str> = match self.volumes {
            true => VolumePlan::ALL.iter().map(|(name, _)| *name).collect(),
            false => Plan::ALL.iter().map(|(name, _)| *name).collect(),
        };
        match &self.plan {
            Some(plan) if !names.iter().any(|name| self.has_plan(name)) => {
                Err(format!("unknown plan {plan}: there are {}", names.join(", ")))
            }
            _ => Ok(()),
        }
    }
}

fn value(option: &str, value: Option<String>) -> Result<String, String> {
    value.ok_or(format!("{option} needs a value"))
}

fn number(option: &str, given: Option<String>) -> Result<u64, String> {
    let given = value(option, given)?;
    given.parse().map_err(|_| format!("{option} needs a number, not {given}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str) -> Result<Options, String> {
        Options::of(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn options_are_read_and_none_that_is_unknown_is_passed_over() {
        let read = of("--seeds 7 --from 3 --plan apart --trace").expect("they are known");
        assert_eq!((read.seeds, read.from, read.trace, read.volumes), (7, 3, true, false));
        assert!(read.has_plan("apart") && !read.has_plan("three"));
        for wrong in ["--seed 7", "7", "--seeds", "--seeds many", "--plan nowhere", "--plan"] {
            assert!(of(wrong).is_err(), "{wrong}");
        }
        assert!(of("--plan apart --volumes").is_err(), "a plan of replicas");
    }
}
