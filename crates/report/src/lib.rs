//! The record of a training step, its log, and the tables people read.
//!
//! In: plain numbers per step and per domain. Out: `metrics.jsonl`, one JSON object a line, and
//! tables as text. Nothing here decides anything; it drops nothing but what a line of text rounds
//! away.
//!
//! ```
//! let rows = [cuvee_report::EvalRow {
//!     domain: "web".into(), tokens: 65_536, loss: 3.25, perplexity: 25.79, bits_per_byte: 1.17,
//! }];
//! let table = cuvee_report::eval_table(&rows);
//! assert!(table.contains("65,536") && table.contains("3.250"));
//! ```

mod error;
mod metrics;
mod number;
mod record;
mod table;

pub use error::{ReportError, Result};
pub use metrics::{MetricsLog, read_metrics};
pub use number::{bytes, count, duration, thousands};
pub use record::{EvalDomainRecord, EvalRecord, PerDomain, Record, StepDomainRecord, StepRecord};
pub use table::{
    EvalRow, PlanRow, PreparedRow, ResultRow, eval_table, plan_table, prepared_table, result_table,
};
