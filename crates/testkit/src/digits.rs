//! MNIST's layout on the Hub, in small: Parquet with a PNG a row.

use std::sync::Arc;

use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

/// The bytes of a Parquet file of 8-bit grey images of `width` × `height` pixels and their labels,
/// with the columns that the Hub's `ylecun/mnist` has: `image` (a PNG as `bytes`, and `path`) and
/// `label`.
pub fn digits_parquet(images: &[(&[u8], i64)], (width, height): (u32, u32)) -> Vec<u8> {
    let schema = "message schema {
        optional group image { optional binary bytes; optional binary path (UTF8); }
        optional int64 label;
    }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let mut out = Vec::new();
    // Plain, so that tests find a PNG's bytes in the file.
    let properties = WriterProperties::builder().set_dictionary_enabled(false).build();
    let mut writer = SerializedFileWriter::new(&mut out, schema, Arc::new(properties)).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let pngs: Vec<ByteArray> =
        images.iter().map(|(pixels, _)| ByteArray::from(png(pixels, width, height))).collect();
    let paths: Vec<ByteArray> =
        (0..images.len()).map(|i| ByteArray::from(format!("{i}.png").into_bytes())).collect();
    for values in [pngs, paths] {
        let mut column = group.next_column().unwrap().unwrap();
        // The group is there, and so is the value in it.
        let there = vec![2; values.len()];
        column.typed::<ByteArrayType>().write_batch(&values, Some(&there), None).unwrap();
        column.close().unwrap();
    }
    let labels: Vec<i64> = images.iter().map(|(_, label)| *label).collect();
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<Int64Type>().write_batch(&labels, Some(&vec![1; labels.len()]), None).unwrap();
    column.close().unwrap();
    group.close().unwrap();
    writer.close().unwrap();
    out
}

fn png(pixels: &[u8], width: u32, height: u32) -> Vec<u8> {
    let mut out = Vec::new();
    let mut encoder = png::Encoder::new(&mut out, width, height);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(pixels).unwrap();
    writer.finish().unwrap();
    out
}
