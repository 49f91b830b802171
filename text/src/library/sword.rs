//! Modules of the SWORD project (zText and zCom): texts of verses in blocks that zlib packed, marked up in OSIS.

use std::borrow::Cow;
use std::io::Read;

use flate2::read::ZlibDecoder;

/// Bytes of a block's entry in the list of blocks: offset, packed and unpacked size, little-endian.
const ENTRY: usize = 12;

/// Elements that begin a line.
const LINES: [&str; 9] = [
    "div", "p", "l", "lg", "lb", "title", "chapter", "item", "row",
];

/// The texts of a testament's blocks without their mark-up, those that hold none left out; at most so many bytes each.
/// Nothing where it is damaged.
pub(super) fn texts(list: &[u8], packed: &[u8], most: u64) -> Option<Vec<String>> {
    let mut texts = Vec::new();
    for entry in list.chunks(ENTRY) {
        let number = |at: usize| {
            let four = entry.get(at..at + 4)?.try_into().ok()?;
            Some(u32::from_le_bytes(four) as usize)
        };
        let (offset, size, unpacked) = (number(0)?, number(4)?, number(8)?);
        let block = packed.get(offset..offset.checked_add(size)?)?;
        let mut text = String::new();
        let read = ZlibDecoder::new(block).take(most).read_to_string(&mut text);
        if read.ok()? != unpacked {
            return None;
        }
        let text = plain(&text)?;
        if !text.is_empty() {
            texts.push(text);
        }
    }
    Some(texts)
}

/// A text without its mark-up and its footnotes, a line a paragraph, a line of verse, a title. Nothing where a tag or a
/// note has no end.
fn plain(osis: &str) -> Option<String> {
    let mut text = String::new();
    let mut rest = osis;
    while let Some((before, tag)) = rest.split_once('<') {
        push(&mut text, before);
        let (tag, after) = tag.split_once('>')?;
        rest = after;
        let name = tag.trim_start_matches('/');
        let name = name.split([' ', '/']).next().unwrap_or_default();
        if name == "note" && !tag.starts_with('/') && !tag.ends_with('/') {
            rest = after.split_once("</note>")?.1;
            push(&mut text, " ");
        } else if LINES.contains(&name) {
            push(&mut text, "\n");
        }
    }
    push(&mut text, rest);
    Some(text.trim_end().to_owned())
}

/// Appends a text between tags. Of white space in a row one character is left: an end of a line where there is one.
fn push(text: &mut String, more: &str) {
    // `&amp;` last, so that what it is part of is not taken again.
    const ENTITIES: [(&str, &str); 5] = [
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&quot;", "\""),
        ("&apos;", "'"),
        ("&amp;", "&"),
    ];
    let mut more = Cow::from(more);
    if more.contains('&') {
        for (entity, letter) in ENTITIES {
            more = more.replace(entity, letter).into();
        }
    }
    for letter in more.chars() {
        let last = text.chars().next_back();
        match (letter, last) {
            ('\n', Some(' ')) => {
                text.pop();
                text.push('\n');
            }
            ('\n', Some('\n') | None) => {}
            (' ' | '\t' | '\r', Some(' ' | '\n') | None) => {}
            (' ' | '\t' | '\r', _) => text.push(' '),
            _ => text.push(letter),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mark_up_and_notes_are_left_out() {
        let osis = "<chapter n=\"1\"/> <title>One</title> <div sID=\"1\"/><w lemma=\"H1\">In</w> <w>the  beginning</w>                    <note n=\"1\">or <hi>start</hi></note>God &amp;lt; <lb/>\n <l>a &quot;line&quot;</l> ";
        assert_eq!(
            plain(osis).as_deref(),
            Some("One\nIn the beginning God &lt;\na \"line\"")
        );
        for damaged in ["a <w", "a <note>b"] {
            assert_eq!(plain(damaged), None, "{damaged}");
        }
    }
}
