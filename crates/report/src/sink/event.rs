//! Records of TensorBoard's event files, by hand: a few fields of a few messages.
//!
//! A file is a row of TFRecords, each of which holds one message `Event`
//! (`tensorflow/core/util/event.proto`, `framework/summary.proto`). A TFRecord is its length
//! (`u64`, little-endian), the checksum of these eight bytes, the content, and the checksum of the
//! content. A checksum is the CRC-32C, turned right by 15 bits, plus a constant, so that a checksum
//! of data that holds checksums stays a good one.

use std::io::{self, Read};

use super::scalars::Scalar;

/// Numbers of the fields that are written or read.
mod field {
    pub(super) mod event {
        pub(in super::super) const WALL_TIME: u32 = 1;
        pub(in super::super) const STEP: u32 = 2;
        pub(in super::super) const FILE_VERSION: u32 = 3;
        pub(in super::super) const SUMMARY: u32 = 5;
        pub(in super::super) const SESSION_LOG: u32 = 7;
    }
    pub(super) const SESSION_STATUS: u32 = 1;
    pub(super) const SUMMARY_VALUE: u32 = 1;
    pub(super) mod value {
        pub(in super::super) const TAG: u32 = 1;
        pub(in super::super) const SIMPLE_VALUE: u32 = 2;
        pub(in super::super) const TENSOR: u32 = 8;
        pub(in super::super) const METADATA: u32 = 9;
    }
    pub(super) const METADATA_PLUGIN: u32 = 1;
    pub(super) const PLUGIN_NAME: u32 = 1;
    pub(super) mod tensor {
        pub(in super::super) const TYPE: u32 = 1;
        pub(in super::super) const SHAPE: u32 = 2;
        pub(in super::super) const STRINGS: u32 = 8;
    }
}

/// `SessionLog.START`.
const START: u64 = 1;
/// `DT_STRING`.
const STRING: u64 = 7;

/// What an event says.
pub(super) enum Content<'a> {
    /// How the file is to be read; its first event.
    Version,
    /// A session begins: what earlier files hold of this step and later ones does not count.
    Start,
    /// A text, in Markdown, under a name.
    Text(&'a str, &'a str),
    /// Numbers; they are kept in single precision.
    Scalars(&'a [Scalar<'a>]),
}

/// Appends the record of an event to `out`. `time` counts seconds since 1970.
pub(super) fn write(out: &mut Vec<u8>, time: f64, step: u64, content: &Content) {
    let begin = out.len();
    out.extend([0; 12]);
    write_event(out, time, step, content);
    let length = ((out.len() - begin - 12) as u64).to_le_bytes();
    let (head, event) = out[begin..].split_at_mut(12);
    head[..8].copy_from_slice(&length);
    head[8..].copy_from_slice(&masked_crc(&length).to_le_bytes());
    let checksum = masked_crc(event);
    out.extend(checksum.to_le_bytes());
}

fn write_event(out: &mut Vec<u8>, time: f64, step: u64, content: &Content) {
    fixed64(out, field::event::WALL_TIME, time.to_le_bytes());
    if step > 0 {
        varint_field(out, field::event::STEP, step);
    }
    match content {
        Content::Version => {
            bytes_field(out, field::event::FILE_VERSION, &[b"brain.Event:2"]);
        }
        Content::Start => message(out, field::event::SESSION_LOG, |log| {
            varint_field(log, field::SESSION_STATUS, START);
        }),
        Content::Text(tag, text) => message(out, field::event::SUMMARY, |summary| {
            message(summary, field::SUMMARY_VALUE, |value| write_text(value, tag, text));
        }),
        Content::Scalars(scalars) => message(out, field::event::SUMMARY, |summary| {
            scalars.iter().for_each(|scalar| write_scalar(summary, scalar));
        }),
    }
}

/// Lengths are summed up beforehand: there may be thousands of these in a step.
fn write_scalar(summary: &mut Vec<u8>, scalar: &Scalar) {
    let name: usize = scalar.tag.parts().map(|part| part.len() + 1).sum::<usize>() - 1;
    let (encoded, length) = encoded_varint(name as u64);
    key(summary, field::SUMMARY_VALUE, Wire::Bytes);
    // A key, the name and its length; a key and a number.
    varint(summary, (1 + length + name + 1 + 4) as u64);
    key(summary, field::value::TAG, Wire::Bytes);
    summary.extend_from_slice(&encoded[..length]);
    for (place, part) in scalar.tag.parts().enumerate() {
        if place > 0 {
            summary.push(b'/');
        }
        summary.extend_from_slice(part.as_bytes());
    }
    key(summary, field::value::SIMPLE_VALUE, Wire::Fixed32);
    summary.extend_from_slice(&(scalar.value as f32).to_le_bytes());
}

/// A tensor without axes that holds one string, for the plugin that shows texts.
fn write_text(value: &mut Vec<u8>, tag: &str, text: &str) {
    bytes_field(value, field::value::TAG, &[tag.as_bytes()]);
    message(value, field::value::TENSOR, |tensor| {
        varint_field(tensor, field::tensor::TYPE, STRING);
        bytes_field(tensor, field::tensor::SHAPE, &[]);
        bytes_field(tensor, field::tensor::STRINGS, &[text.as_bytes()]);
    });
    message(value, field::value::METADATA, |metadata| {
        message(metadata, field::METADATA_PLUGIN, |plugin| {
            bytes_field(plugin, field::PLUGIN_NAME, &[b"text"]);
        });
    });
}

/// The checksum that TFRecords hold of `data`.
fn masked_crc(data: &[u8]) -> u32 {
    let crc = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, data) as u32;
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

/// How a field's value is stored, with the number that stands for it.
#[derive(Clone, Copy, PartialEq)]
enum Wire {
    Varint = 0,
    Fixed64 = 1,
    Bytes = 2,
    Fixed32 = 5,
}

fn key(out: &mut Vec<u8>, field: u32, wire: Wire) {
    varint(out, u64::from(field) << 3 | wire as u64);
}

fn varint(out: &mut Vec<u8>, value: u64) {
    let (encoded, length) = encoded_varint(value);
    out.extend_from_slice(&encoded[..length]);
}

/// Seven bits a byte, the lowest first; the highest bit of a byte says that more follow.
fn encoded_varint(mut value: u64) -> ([u8; 10], usize) {
    let (mut encoded, mut length) = ([0; 10], 0);
    for byte in &mut encoded {
        length += 1;
        *byte = value as u8 & 0x7f;
        value >>= 7;
        if value == 0 {
            break;
        }
        *byte |= 0x80;
    }
    (encoded, length)
}

fn varint_field(out: &mut Vec<u8>, field: u32, value: u64) {
    key(out, field, Wire::Varint);
    varint(out, value);
}

fn fixed64(out: &mut Vec<u8>, field: u32, value: [u8; 8]) {
    key(out, field, Wire::Fixed64);
    out.extend(value);
}

fn bytes_field(out: &mut Vec<u8>, field: u32, parts: &[&[u8]]) {
    key(out, field, Wire::Bytes);
    varint(out, parts.iter().map(|part| part.len() as u64).sum());
    parts.iter().for_each(|part| out.extend(*part));
}

/// A field of bytes whose length is known once they are written.
fn message(out: &mut Vec<u8>, field: u32, write: impl FnOnce(&mut Vec<u8>)) {
    key(out, field, Wire::Bytes);
    let begin = out.len();
    write(out);
    let (encoded, length) = encoded_varint((out.len() - begin) as u64);
    out.splice(begin..begin, encoded[..length].iter().copied());
}

/// Reads the events of a file, as far as they are whole.
pub(super) struct Events<R> {
    file: R,
    /// Where the next record begins, and how many bytes there are in all.
    at: u64,
    length: u64,
}

impl<R: Read> Events<R> {
    /// `file` stands at its beginning and has `length` bytes.
    pub(super) fn new(file: R, length: u64) -> Self {
        Self { file, at: 0, length }
    }

    /// Where the next record begins; at the end, where the last whole one ends.
    pub(super) fn position(&self) -> u64 {
        self.at
    }

    /// The next record's content; `None` at the end, and where a record is not whole.
    pub(super) fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        let left = self.length - self.at;
        if left < 16 {
            return Ok(None);
        }
        let mut head = [0; 12];
        self.file.read_exact(&mut head)?;
        let (length, checksum) = head.split_at(8);
        let bytes = u64::from_le_bytes(length.try_into().unwrap_or_default());
        if masked_crc(length).to_le_bytes() != *checksum || bytes > left - 16 {
            return Ok(None);
        }
        let mut data = vec![0; bytes as usize + 4];
        self.file.read_exact(&mut data)?;
        let checksum = data.split_off(bytes as usize);
        if masked_crc(&data).to_le_bytes() != *checksum {
            return Ok(None);
        }
        self.at += bytes + 16;
        Ok(Some(data))
    }
}

/// An event's step, and the name of its first value if it has one.
pub(super) fn step_and_tag(event: &[u8]) -> (u64, Option<&str>) {
    let (mut step, mut tag) = (0, None);
    for (number, value) in fields(event) {
        match (number, value) {
            (field::event::STEP, Field::Varint(found)) => step = found,
            (field::event::SUMMARY, Field::Bytes(summary)) => {
                let value = first(summary, field::SUMMARY_VALUE);
                let name = value.and_then(|value| first(value, field::value::TAG));
                tag = name.and_then(|name| std::str::from_utf8(name).ok());
            }
            _ => {}
        }
    }
    (step, tag)
}

/// The first of a message's fields of bytes with this number.
fn first(message: &[u8], wanted: u32) -> Option<&[u8]> {
    fields(message).find_map(|(number, value)| match value {
        Field::Bytes(bytes) if number == wanted => Some(bytes),
        _ => None,
    })
}

/// The value of a message's field.
#[derive(Debug, PartialEq)]
pub(super) enum Field<'a> {
    Varint(u64),
    Fixed64([u8; 8]),
    Bytes(&'a [u8]),
    Fixed32([u8; 4]),
}

/// The fields of a message with their numbers, as far as they can be read.
pub(super) fn fields(mut message: &[u8]) -> impl Iterator<Item = (u32, Field<'_>)> {
    std::iter::from_fn(move || {
        let key = take_varint(&mut message)?;
        let value = match key & 7 {
            0 => Field::Varint(take_varint(&mut message)?),
            1 => Field::Fixed64(*message.split_off(..8)?.first_chunk()?),
            2 => {
                let length = usize::try_from(take_varint(&mut message)?).ok()?;
                Field::Bytes(message.split_off(..length)?)
            }
            5 => Field::Fixed32(*message.split_off(..4)?.first_chunk()?),
            _ => return None,
        };
        Some((u32::try_from(key >> 3).ok()?, value))
    })
}

fn take_varint(message: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for place in 0..10 {
        let byte = *message.split_off_first()?;
        value |= u64::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::scalars;
    use super::*;
    use crate::record::{PerDomain, StepRecord};

    /// Written by `RecordWriter` and the messages of the package `tensorboard` 2.21: the version, a
    /// start at step 301, twelve lines of a config at 300, and two numbers at 301.
    const GOLDEN: &str = concat!(
        "1800000000000000a37f4b22090000d09ab64ada411a0d627261696e2e4576656e743a3276687711100000000000",
        "000095fbfe18090000d09ab64ada4110ad023a0208013526ec7fca00000000000000accf13c5090000d09ab64ada",
        "4110ac022abb010ab8010a06636f6e66696742a30108071200429c012020202073656564203d20300a2020202073",
        "656564203d20300a2020202073656564203d20300a2020202073656564203d20300a2020202073656564203d2030",
        "0a2020202073656564203d20300a2020202073656564203d20300a2020202073656564203d20300a202020207365",
        "6564203d20300a2020202073656564203d20300a2020202073656564203d20300a2020202073656564203d20300a",
        "4a080a060a04746578744e54df633b000000000000001a23ac5c090000209bb64ada4110ad022a2d0a110a0a7472",
        "61696e2f6c6f737315000060400a180a11646f6d61696e2f6ec3a46d652f6c6f737315cdcccc3d429c961c",
    );

    fn golden() -> Vec<u8> {
        let digits = |at: usize| u8::from_str_radix(&GOLDEN[at..at + 2], 16).unwrap();
        (0..GOLDEN.len()).step_by(2).map(digits).collect()
    }

    /// `train/loss` and one domain's loss.
    fn two_numbers() -> Vec<Scalar<'static>> {
        let domains = PerDomain(vec![(
            "näme".to_owned(),
            crate::record::StepDomainRecord {
                loss: Some(0.1),
                importance: f64::NAN,
                sampling_weight: f64::NAN,
                loss_weight: f64::NAN,
                loss_weight_error: None,
                multiplier: f64::NAN,
                sequences: 0,
                epochs: f64::NAN,
                objective_mean: None,
                gradient_deviation: None,
            },
        )]);
        let nan = f64::NAN;
        let record: &'static StepRecord = Box::leak(Box::new(StepRecord {
            lr: nan,
            gradient_norm: nan,
            clip_factor: nan,
            tokens_per_second: nan,
            domains,
            ..StepRecord::sample()
        }));
        scalars::of_step(record)
    }

    #[test]
    fn events_are_written_as_tensorboards_own_writer_writes_them() {
        let mut out = Vec::new();
        let text = "    seed = 0\n".repeat(12);
        write(&mut out, 1_764_416_107.25, 0, &Content::Version);
        write(&mut out, 1_764_416_107.25, 301, &Content::Start);
        write(&mut out, 1_764_416_107.25, 300, &Content::Text("config", &text));
        write(&mut out, 1_764_416_108.5, 301, &Content::Scalars(&two_numbers()));
        assert_eq!(out, golden());
    }

    #[test]
    fn events_are_read_back_as_far_as_they_are_whole() {
        let read = |bytes: &[u8]| {
            let mut events = Events::new(bytes, bytes.len() as u64);
            let mut found = Vec::new();
            while let Some(event) = events.next().unwrap() {
                let (step, tag) = step_and_tag(&event);
                found.push((step, tag.map(str::to_owned)));
            }
            (found, events.position())
        };
        let bytes = golden();
        let tag = |tag: &str| Some(tag.to_owned());
        let all = [(0, None), (301, None), (300, tag("config")), (301, tag("train/loss"))];
        assert_eq!(read(&bytes), (all.to_vec(), bytes.len() as u64));
        let ends = [0, 40, 72, 290, bytes.len()];
        for length in 0..bytes.len() {
            let whole = ends.iter().rposition(|&end| end <= length).unwrap();
            assert_eq!(read(&bytes[..length]), (all[..whole].to_vec(), ends[whole] as u64));
            let mut broken = bytes.clone();
            broken[length] ^= 1;
            assert_eq!(read(&broken).0, all[..whole], "byte {length}");
        }
    }

    #[test]
    fn checksums_have_the_known_values() {
        let crc = |data: &[u8]| crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, data);
        // RFC 3720, appendix B.4, and the catalogue's check value.
        assert_eq!(crc(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc(&[0xff; 32]), 0x62a8_ab43);
        assert_eq!(crc(&(0..32).collect::<Vec<u8>>()), 0x46dd_794e);
        assert_eq!(crc(b"123456789"), 0xe306_9283);
        // The first two checksums of GOLDEN.
        assert_eq!(masked_crc(&24u64.to_le_bytes()), 0x224b_7fa3);
        assert_eq!(masked_crc(&golden()[12..36]), 0x1177_6876);
    }

    #[test]
    fn numbers_of_every_length_are_read_back() {
        for value in [0, 1, 127, 128, 300, 1 << 14, (1 << 35) - 1, 1 << 63, u64::MAX] {
            let mut out = Vec::new();
            varint_field(&mut out, 2_000, value);
            assert_eq!(fields(&out).collect::<Vec<_>>(), [(2_000, Field::Varint(value))]);
            assert!(fields(&out[..out.len() - 1]).next().is_none());
        }
    }
}
