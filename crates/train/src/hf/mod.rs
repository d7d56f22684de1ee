//! The Hugging Face layout of a model.
//!
//! `config.json` and `model.safetensors` in; the same with tokenizer and generation settings out.
//! So `transformers` opens what Cuvee trained, and Cuvee continues what others did.
//!
//! | file | what it does |
//! | --- | --- |
//! | `json` | reads and writes JSON files |
//! | `tensor_file` | reads and writes `.safetensors` |
//! | `inherited` | what a pretrained model's files say besides its shape |
//! | `config` | `config.json` to a model's shape and back |
//! | `config_file`, `keys`, `rope` | its keys: read, known to change nothing, of rotary positions |
//! | `family/` | what each family's file has of its own |
//! | `import` | a folder to parameters |
//! | `vocabulary` | the rows that another vocabulary begins with |
//! | `resized` | a folder to parameters with these rows |
//! | `export` | parameters to a folder, in one file or several |

mod config;
mod config_file;
mod export;
mod family;
mod import;
mod inherited;
mod json;
mod keys;
mod resized;
mod rope;
mod tensor_file;
#[cfg(test)]
mod tests;
mod vocabulary;

pub use config::read_config;
pub use export::{
    CARD, CARD_MARK, ExportOptions, ExportTokenizer, Exported, is_written_here, write_export,
    write_export_files,
};
pub(crate) use import::open_file;
pub use import::{Weights, open_initial, open_parameters, resolve_model, weights_sha256};
pub use inherited::Inherited;
pub use resized::{Resized, open_resized, vocabulary_rows};
pub(crate) use tensor_file::in_file_order;
pub use tensor_file::{SafetensorsFile, read_safetensors, write_safetensors};
pub use vocabulary::VocabularyRows;
