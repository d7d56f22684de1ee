//! Compiles the sources of the kernels for the processor, and lists the kernels that are in them.
//!
//! In: `*.cu` of `crates/kernels/cuda`, and those of `tests/cuda`, which test the emulator. Out: a
//! library with a table of the sources and, of each, of its kernels. A kernel is what is marked
//! `__global__` after the preprocessor, since macros make some of them.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let here = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").ok_or("no manifest")?);
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("no OUT_DIR")?);
    let kernels = here.join("../kernels/cuda").canonicalize()?;
    let folders = [kernels.clone(), here.join("tests/cuda")];
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=cuda");
    for folder in &folders {
        println!("cargo::rerun-if-changed={}", folder.display());
    }

    let mut cpp = cc::Build::new();
    cpp.cpp(true).std("c++17").opt_level(2).debug(true).warnings(false);
    cpp.include(here.join("cuda")).include(kernels).define("CUVEE_ON_CPU", None);
    cpp.flag("-fno-exceptions").flag("-fno-rtti");
    // Their accesses of memory are checked by cuda/memory.cpp, in the place of the compiler's own
    // libraries. No loop becomes a call that would not be seen.
    let mut checked = cpp.clone();
    checked.flag("-fno-strict-aliasing").flag_if_supported("-fno-tree-loop-distribute-patterns");
    checked.flag("-fsanitize=thread,alignment,bounds");
    checked.flag("-fsanitize=signed-integer-overflow,integer-divide-by-zero");

    let (mut externs, mut rows) = (String::new(), String::new());
    for (name, source) in sources(&folders)? {
        let wrapper = out.join(format!("{name}.cpp"));
        let mut text = format!("#include {source:?}\n#include \"entry.h\"\n");
        fs::write(&wrapper, &text)?;
        let mut lister = cpp.clone();
        lister.flag("-P").define("__global__", "__global__");
        lister.define("__launch_bounds__", "__launch_bounds__").file(&wrapper);
        let expanded = String::from_utf8(lister.try_expand()?)?;
        let entries = list(&expanded).map_err(|what| format!("{}: {what}", source.display()))?;
        text += &format!("extern \"C\" {{\nextern const Entry cuvee_source_{name}[];\n");
        text += &format!("const Entry cuvee_source_{name}[] = {{{entries}{{}}}};\n}}\n");
        fs::write(&wrapper, text)?;
        checked.file(&wrapper);
        externs += &format!("extern const Entry cuvee_source_{name}[];\n");
        rows += &format!("{{\"{name}\", cuvee_source_{name}}},\n");
    }
    let table = out.join("cuvee_emulator_sources.cpp");
    let text = "#include \"entry.h\"\nstruct Source { const char* name; const Entry* entries; };\n";
    let begin = "extern const Source cuvee_emulator_sources[];\nconst Source";
    let rows = format!("{begin} cuvee_emulator_sources[] = {{\n{rows}{{}}}};\n");
    fs::write(&table, format!("{text}extern \"C\" {{\n{externs}{rows}}}\n"))?;

    for object in checked.try_compile_intermediates()? {
        cpp.object(object);
    }
    cpp.file(table).file(here.join("cuda/block.cpp")).file(here.join("cuda/memory.cpp"));
    cpp.try_compile("cuvee_emulator")?;
    Ok(())
}

/// The sources in the folders, by name.
fn sources(folders: &[PathBuf]) -> Result<BTreeMap<String, PathBuf>> {
    let mut found = BTreeMap::new();
    for folder in folders {
        for file in fs::read_dir(folder)? {
            let path = file?.path();
            if path.extension().is_none_or(|extension| extension != "cu") {
                continue;
            }
            let name = name_of(&path)?;
            if let Some(other) = found.insert(name, path.clone()) {
                let (path, other) = (path.display(), other.display());
                return Err(format!("{path} and {other} have one name").into());
            }
        }
    }
    Ok(found)
}

/// A source's name, which is part of a name of C++ too.
fn name_of(path: &Path) -> Result<String> {
    match path.file_stem().and_then(|stem| stem.to_str()) {
        Some(stem) if identifier(stem).len() == stem.len() => Ok(stem.to_string()),
        _ => Err(format!("{}: expected letters, digits and _", path.display()).into()),
    }
}

/// The kernels of a preprocessed source, as rows of its table.
fn list(text: &str) -> std::result::Result<String, String> {
    let mut parts = text.split("__global__");
    let mut before = parts.next().unwrap_or_default();
    let mut entries = String::new();
    for part in parts {
        let start = part.trim_start().lines().next().unwrap_or_default();
        let (name, threads) =
            declaration(part).ok_or(format!("expected the declaration of a kernel: {start}"))?;
        if !before.trim_end().ends_with("extern \"C\"") {
            return Err(format!("kernel `{name}` has no `extern \"C\"` before `__global__`"));
        }
        let Some(threads) = threads else {
            return Err(format!("kernel `{name}` has no `__launch_bounds__(THREADS)`"));
        };
        entries += &format!("ENTRY({name}, ({threads})),\n");
        before = part;
    }
    if entries.is_empty() {
        return Err("no kernel in it: `extern \"C\" __global__ void …`".to_string());
    }
    Ok(entries)
}

/// The name and the launch bounds of what follows `__global__`.
fn declaration(text: &str) -> Option<(&str, Option<&str>)> {
    let (mut rest, mut threads) = (text.trim_start(), None);
    loop {
        let word = identifier(rest);
        rest = rest[word.len()..].trim_start();
        match word {
            "" => return None,
            "void" => {}
            "__launch_bounds__" => {
                let inside = parentheses(rest)?;
                rest = rest[inside.len() + 2..].trim_start();
                threads = Some(inside.split(',').next().unwrap_or(inside).trim());
            }
            name => return rest.starts_with('(').then_some((name, threads)),
        }
    }
}

/// The identifier that a text begins with.
fn identifier(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    &text[..end.unwrap_or(text.len())]
}

/// What is inside the parentheses that a text begins with.
fn parentheses(text: &str) -> Option<&str> {
    let mut depth = 0;
    for (at, character) in text.char_indices() {
        match character {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return text[..at].strip_prefix('(');
        }
    }
    None
}
