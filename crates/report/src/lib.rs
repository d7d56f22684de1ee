//! The record of a training step, its log, and the tables people read.
//!
//! In: plain numbers per step and per domain. Out: `metrics.jsonl`, one JSON object a line, the
//! window losses of each evaluation in `eval/`, the same numbers for TensorBoard and Trackio,
//! tables as text, and `report.html` ([`page`]). Nothing here decides anything; it drops nothing
//! but what a line of text rounds away.
//!
//! ```
//! let rows = [cuvee_report::EvalRow {
//!     domain: "web".into(), windows: 64, tokens: 65_536, loss: 3.25, standard_error: Some(0.02),
//!     perplexity: 25.79, bits_per_byte: 1.17,
//! }];
//! let table = cuvee_report::eval_table(&rows, (3.25, Some(0.02)));
//! assert!(table.contains("65,536") && table.contains("3.250"));
//! ```

mod append;
mod error;
mod interval;
mod metrics;
mod number;
pub mod page;
mod record;
mod scores;
mod sink;
mod table;
mod windows;

pub use error::{ReportError, Result};
pub use interval::{Interval, interval};
pub use metrics::{MetricsLog, read_evaluations, read_last_step, read_metrics};
pub use number::{bytes, count, duration, thousands};
pub use record::{
    CollapseRecord, EvalDomainRecord, EvalRecord, LearnedShares, PerDomain, RAW_SPLIT,
    RAW_TUNE_SPLIT, Record, StepDomainRecord, StepRecord,
};
pub use scores::{Estimate, Normalised, TaskScore, TextMean, TextScore, task_table, text_table};
pub use sink::{LogSpec, Loggers, Opening, ResumePoint, TrackioProject};
pub use table::{
    EvalRow, PlanRow, PreparedRow, ResultMean, ResultRow, comparison_table, eval_table, plan_table,
    prepared_table, result_table,
};
pub use windows::{DomainWindows, EvalFolder, EvalWindows, WindowRecord, read_windows};
