//! The Hugging Face layout of a Llama model.
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
//! | `import` | a folder to parameters |
//! | `vocabulary` | the rows that another vocabulary begins with |
//! | `resized` | a folder to parameters with these rows |
//! | `export` | parameters to a folder, in one file or several |

mod config;
mod export;
mod import;
mod inherited;
mod json;
mod resized;
mod tensor_file;
#[cfg(test)]
mod tests;
mod vocabulary;

pub use config::read_config;
pub use export::{
    CARD, CARD_MARK, ExportOptions, ExportTokenizer, Exported, write_export, write_export_files,
};
pub use import::{Weights, open_initial, open_parameters, resolve_model, weights_sha256};
pub use inherited::Inherited;
pub use resized::{Resized, open_resized, vocabulary_rows};
pub use tensor_file::{SafetensorsFile, read_safetensors, write_safetensors};
pub use vocabulary::VocabularyRows;
