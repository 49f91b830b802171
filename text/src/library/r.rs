//! Vectors of strings in R's databases of objects (`.rdb`): serialised in XDR, each packed by zlib behind its length
//! (R Internals, 1.8 and 2.2).

use std::io::Read;

use flate2::bufread::ZlibDecoder;

/// Format 3 in XDR.
const HEAD: &[u8] = b"X\n\0\0\0\x03";

/// Kinds of values, the lowest byte of their flags.
const STRINGS: u32 = 16;
const STRING: u32 = 9;

/// The objects of a database, which must be vectors of strings, as lines; at most so many bytes each. Nothing where it is
/// damaged.
pub(super) fn texts(mut database: &[u8], most: u64) -> Option<Vec<Vec<u8>>> {
    let mut texts = Vec::new();
    while !database.is_empty() {
        let size = number(&mut database)?;
        let mut object = Vec::new();
        let unpacked = ZlibDecoder::new(&mut database)
            .take(most)
            .read_to_end(&mut object);
        if unpacked.ok()? != size as usize {
            return None;
        }
        texts.push(lines(&object)?);
    }
    Some(texts)
}

/// A vector of strings as lines.
fn lines(object: &[u8]) -> Option<Vec<u8>> {
    let mut rest = object.strip_prefix(HEAD)?;
    // R's version, the least that can read it, and the name of an encoding.
    let (_, _, name) = (number(&mut rest)?, number(&mut rest)?, number(&mut rest)?);
    rest = rest.get(name as usize..)?;
    if number(&mut rest)? & 0xff != STRINGS {
        return None;
    }
    let mut text = Vec::new();
    for _ in 0..number(&mut rest)? {
        if number(&mut rest)? & 0xff != STRING {
            return None;
        }
        let len = number(&mut rest)? as usize;
        text.extend_from_slice(rest.get(..len)?);
        text.push(b'\n');
        rest = &rest[len..];
    }
    Some(text)
}

fn number(bytes: &mut &[u8]) -> Option<u32> {
    let (four, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(u32::from_be_bytes(*four))
}
