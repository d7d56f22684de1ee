//! Packs the script that draws plots: plotly.js, out of the crate `plotly`, gzipped, as base64.
//!
//! Out: `plotly.js.gz.base64` in the build's folder, which a page embeds as it is and unpacks in
//! the browser. Packed, a page has less than half of the size, and the program carries neither the
//! crate nor the typesetting script that comes with it.

use std::error::Error;
use std::fs;
use std::io::Write;
use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::write::GzEncoder;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    let scripts = plotly::Plot::offline_js_sources();
    let source = script(&scripts).ok_or("plotly carries no script that begins with its name")?;
    let mut packed = GzEncoder::new(Vec::new(), Compression::best());
    packed.write_all(source.as_bytes())?;
    let folder = std::env::var_os("OUT_DIR").ok_or("Cargo sets no OUT_DIR")?;
    let text = STANDARD.encode(packed.finish()?);
    fs::write(PathBuf::from(folder).join("plotly.js.gz.base64"), text)?;
    Ok(())
}

/// The `<script>` element's content that is plotly.js.
fn script(scripts: &str) -> Option<&str> {
    let bodies = scripts.split("</script>").filter_map(|element| Some(element.split_once('>')?.1));
    bodies.map(str::trim).find(|body| body.starts_with("/**\n* plotly.js "))
}
