//! BibTeX of the papers that tasks and published figures come from. A text names a paper by its arXiv id, or where it has
//! none by its address, as `TaskSpec::source` and a target's `source` do.

/// The entries, each with its `eprint` or `howpublished`.
const ENTRIES: &str = include_str!("sources.bib");

/// The entries whose arXiv id or address stands in a text, in the order of the file.
pub fn citations(text: &str) -> Vec<&'static str> {
    let named = |entry: &&str| id(entry).is_some_and(|id| text.contains(id));
    entries().filter(named).collect()
}

/// Each entry: from a line that begins with `@` to the next.
fn entries() -> impl Iterator<Item = &'static str> {
    let starts = ENTRIES.match_indices("\n@").map(|(place, _)| place + 1);
    let ends = starts.clone().chain([ENTRIES.len()]);
    let entry = |(start, end): (usize, usize)| ENTRIES[start..end].trim_end();
    [0].into_iter().chain(starts).zip(ends).map(entry)
}

/// What a source names it by: its arXiv id, or where it has none its address.
fn id(entry: &str) -> Option<&str> {
    let marked = ["eprint={", "howpublished={"];
    let (_, rest) = marked.iter().find_map(|mark| entry.split_once(mark))?;
    Some(rest.split_once('}')?.0)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::{Suite, registry, suites};

    /// The arXiv ids, four digits, a point, five digits; where there is none the addresses of repositories.
    fn ids(text: &str) -> Vec<&str> {
        let words = text.split(|c: char| !(c.is_ascii_digit() || c == '.'));
        let words = words.map(|word| word.trim_matches('.'));
        let papers = words.filter(|word| word.len() == 10 && word.find('.') == Some(4));
        let papers: Vec<&str> = papers.collect();
        if !papers.is_empty() {
            return papers;
        }
        let words = text.split([' ', '(', ')', ',', ';']);
        words
            .filter(|word| word.starts_with("github.com/"))
            .collect()
    }

    #[test]
    fn every_paper_that_is_named_has_an_entry_and_every_entry_is_named() {
        let mut sources: Vec<String> = Vec::new();
        sources.extend(registry().iter().map(|spec| spec.source.to_owned()));
        for (name, text) in suites() {
            let suite = Suite::from_toml(text, name).unwrap();
            sources.extend(suite.targets.into_iter().map(|target| target.source));
        }
        let named: BTreeSet<&str> = sources.iter().flat_map(|source| ids(source)).collect();
        let there: BTreeSet<&str> = entries().map(|entry| id(entry).expect(entry)).collect();
        assert_eq!(named, there);
        for source in &sources {
            assert!(!citations(source).is_empty(), "`{source}` cites nothing");
        }
    }
}
