//! Published layouts of hybrid models as the kind of each layer.

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
