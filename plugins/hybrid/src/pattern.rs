//! Patterns such as `mamba2*3+attention` as the kind of each layer. Text only; no mixers here.

/// Kinds of layer that a pattern may name.
pub const KINDS: [&str; 4] = ["attention", "lstm", "mamba", "mamba2"];

/// The kinds that a pattern names, in order, repetitions written out: `a*2+b` is a, a, b.
///
/// # Errors
/// One sentence with the term that is wrong.
pub fn parse(text: &str) -> Result<Vec<&'static str>, String> {
    let mut layers = Vec::new();
    for term in text.split('+') {
        let (name, count) = match term.split_once('*') {
            Some((name, count)) => (name.trim(), count.trim()),
            None => (term.trim(), "1"),
        };
        let kind = KINDS
            .into_iter()
            .find(|kind| *kind == name)
            .ok_or_else(|| {
                format!(
                    "`{name}` in pattern `{text}` is no kind of layer; there are {}",
                    KINDS.join(", ")
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

/// Layers of `mamba2attn`: Mamba-2 with attention at 9, 18, 27, 36, 45 and 56 of 64 (counted from 0;
/// arXiv 2405.21060, section 9.2.3). Other depths keep that share, spread evenly, at least one.
pub fn mamba2attn(layers: usize) -> Vec<&'static str> {
    let attention: Vec<usize> = if layers == 64 {
        vec![9, 18, 27, 36, 45, 56]
    } else {
        let count = ((layers * 6) as f64 / 64.0).round().max(1.0) as usize;
        (1..=count)
            .map(|index| index * layers / (count + 1))
            .collect()
    };
    let kind = |layer| {
        if attention.contains(&layer) {
            "attention"
        } else {
            "mamba2"
        }
    };
    (0..layers).map(kind).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_patterns_and_names_what_is_wrong() {
        assert_eq!(
            parse("mamba2*3+attention").unwrap(),
            ["mamba2", "mamba2", "mamba2", "attention"]
        );
        assert_eq!(parse("lstm").unwrap(), ["lstm"]);
        assert!(parse("mamba3").unwrap_err().contains("`mamba3`"));
        assert!(parse("mamba*0").unwrap_err().contains("1..1024"));
        assert!(parse("").is_err());
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

    #[test]
    fn mamba2attn_follows_the_paper_at_64_layers_and_has_attention_at_any() {
        let layers = mamba2attn(64);
        let attention: Vec<usize> = (0..64).filter(|&i| layers[i] == "attention").collect();
        assert_eq!(attention, [9, 18, 27, 36, 45, 56]);
        for depth in 1..64 {
            assert!(mamba2attn(depth).contains(&"attention"), "{depth} layers");
        }
        assert_eq!(mamba2attn(2), ["mamba2", "attention"]);
    }
}
