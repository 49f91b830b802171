//! Patterns such as `mamba2*3+attention` as the kind of each layer. Text only; no mixers here.

/// The kinds that a pattern names, in order, repetitions written out: `a*2+b` is a, a, b. `known` are
/// the kinds there are.
///
/// # Errors
/// One sentence with the term that is wrong.
pub fn parse(text: &str, known: &[&'static str]) -> Result<Vec<&'static str>, String> {
    let mut layers = Vec::new();
    for term in text.split('+') {
        let (name, count) = match term.split_once('*') {
            Some((name, count)) => (name.trim(), count.trim()),
            None => (term.trim(), "1"),
        };
        let kind = known
            .iter()
            .copied()
            .find(|kind| *kind == name)
            .ok_or_else(|| {
                format!(
                    "`{name}` in pattern `{text}` is no kind of layer; there are {}",
                    known.join(", ")
                )
            })?;
        let count = count
            .parse()
            .ok()
            .filter(|count| (1..=1024).contains(count))
            .ok_or_else(|| {
                format!("`{term}` in pattern `{text}`: a count is a whole number 1..1024")
            })?;
        layers.extend(std::iter::repeat_n(kind, count));
    }
    Ok(layers)
}

/// The pattern repeated over a number of layers.
///
/// # Errors
/// A pattern that is longer than the model, since its last kinds would silently be left out.
pub fn deal(pattern: &[&'static str], layers: usize) -> Result<Vec<&'static str>, String> {
    if pattern.len() > layers {
        return Err(format!(
            "the pattern has {} layers and the model only {layers}; use layers={} or more",
            pattern.len(),
            pattern.len()
        ));
    }
    Ok(pattern.iter().copied().cycle().take(layers).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: [&str; 2] = ["mamba2", "attention"];

    #[test]
    fn reads_patterns_and_names_what_is_wrong() {
        assert_eq!(
            parse("mamba2*3+attention", &KINDS).unwrap(),
            ["mamba2", "mamba2", "mamba2", "attention"]
        );
        assert!(parse("mamba3", &KINDS).unwrap_err().contains("`mamba3`"));
        assert!(parse("mamba2*0", &KINDS).unwrap_err().contains("1..1024"));
        assert!(parse("", &KINDS).is_err());
    }

    #[test]
    fn deals_a_pattern_over_the_layers() {
        assert_eq!(
            deal(&["mamba", "lstm"], 3).unwrap(),
            ["mamba", "lstm", "mamba"]
        );
        assert!(
            deal(&["mamba", "lstm"], 1)
                .unwrap_err()
                .contains("layers=2")
        );
    }
}
