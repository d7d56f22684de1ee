//! Many runs, a few at once: arms and seeds, each run an ordinary run folder. Which runs and what
//! for is the caller's: `compare`, `search`.
//!
//! | file | what it does |
//! | --- | --- |
//! | `arms` | what is run: arms, their plans, seeds |
//! | `speed`, `step_times`, `cost` | runs at once; a step's time; time and disk of what is left |
//! | `watch` | what a caller is told of runs, and where it may stop them |
//! | `one_run`, `board` | a run, and the display |
//! | `queue` | all runs, a few at once |

mod arms;
mod board;
mod cost;
mod one_run;
mod queue;
mod speed;
mod step_times;
mod watch;

pub use arms::{
    Arm, ArmPlan, Run, Sweep, arithmetic_of, by_weights, corpus, engine_name, matters, part_of,
    pin_threads, resolve, window_tokens,
};
pub use cost::Cost;
pub use one_run::{Status, Stopped, check_config, evaluations, status};
pub use speed::{Sharing, Wanted, check_jobs};
pub use step_times::{StepTime, StepTimes};
pub use watch::{Course, NextRound, Unwatched, Watch};
