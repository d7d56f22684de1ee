//! What the command line says of a tokenized file, for the commands that read one.

use cuvee_data::{Format, Split, TokenType, TokensAs};

/// What the command line says of a tokenized file that does not tell by itself.
#[derive(clap::Args, Debug, Clone, Copy)]
pub struct TokenFileArgs {
    /// What the file is: megatron, nanogpt, llmc, datatrove or olmo (default: what it tells)
    #[arg(long, value_name = "FORMAT", value_parser = format)]
    pub format: Option<Format>,
    /// How an id is stored, for files of ids alone: u16, u32, …
    #[arg(long, value_name = "TYPE", value_parser = token_type)]
    pub token_type: Option<TokenType>,
}

impl From<TokenFileArgs> for TokensAs {
    fn from(args: TokenFileArgs) -> Self {
        Self { format: args.format, token_type: args.token_type }
    }
}

/// The format called `name`, for clap.
pub fn format(name: &str) -> Result<Format, String> {
    by_name(name, &Format::all().map(|format| (format.name(), format)).collect::<Vec<_>>())
}

/// The type of ids called `name`, for clap.
pub fn token_type(name: &str) -> Result<TokenType, String> {
    by_name(name, &TokenType::ALL.map(|kind| (kind.name(), kind)))
}

/// The split called `name`, for clap.
pub fn split(name: &str) -> Result<Split, String> {
    by_name(name, &Split::ALL.map(|split| (split.name(), split)))
}

fn by_name<T: Copy>(name: &str, known: &[(&str, T)]) -> Result<T, String> {
    let found = known.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
    let names: Vec<&str> = known.iter().map(|(known, _)| *known).collect();
    found.ok_or_else(|| format!("expected one of {}", names.join(", ")))
}
