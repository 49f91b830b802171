//! Which layers of published hybrids are attention.

/// Where attention is among the layers.
#[derive(Clone, Copy)]
pub enum Layout {
    /// One layer of every `period`, the one at `place`, counted from 0. A model of fewer layers has one, at the same
    /// share of its depth.
    Every {
        /// Layers of a period.
        period: usize,
        /// Place of attention in it.
        place: usize,
    },
    /// `mamba2attn`'s layers 9, 18, 27, 36, 45 and 56 of 64 (counted from 0; arXiv 2405.21060, section 9.2.3). Other
    /// depths keep that share, spread evenly, at least one.
    Mamba2Attn,
}

impl Layout {
    /// The kind of each of `layers` layers, of `other` ones and attention.
    pub fn kinds(self, other: &'static str, layers: usize) -> Vec<&'static str> {
        let kind = |layer| match self.attends(layer, layers) {
            true => "attention",
            false => other,
        };
        (0..layers).map(kind).collect()
    }

    fn attends(self, layer: usize, layers: usize) -> bool {
        match self {
            Self::Every { period, place } if layers < period => layer == place * layers / period,
            Self::Every { period, place } => layer % period == place,
            Self::Mamba2Attn if layers == 64 => [9, 18, 27, 36, 45, 56].contains(&layer),
            Self::Mamba2Attn => {
                let count = ((layers * 6) as f64 / 64.0).round().max(1.0) as usize;
                (1..=count).any(|index| layer == index * layers / (count + 1))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attention(layout: Layout, layers: usize) -> Vec<usize> {
        let kinds = layout.kinds("other", layers);
        (0..layers).filter(|&i| kinds[i] == "attention").collect()
    }

    #[test]
    fn mamba2attn_follows_the_paper_at_64_layers_and_has_attention_at_any() {
        let layers = attention(Layout::Mamba2Attn, 64);
        assert_eq!(layers, [9, 18, 27, 36, 45, 56]);
        for depth in 1..64 {
            let layers = attention(Layout::Mamba2Attn, depth);
            assert!(!layers.is_empty(), "{depth} layers");
        }
        assert_eq!(attention(Layout::Mamba2Attn, 2), [1]);
    }

    #[test]
    fn periods_keep_their_place_in_models_of_fewer_layers() {
        let jamba = Layout::Every {
            period: 8,
            place: 4,
        };
        assert_eq!(attention(jamba, 32), [4, 12, 20, 28]);
        assert_eq!(attention(jamba, 4), [2]);
        let last = Layout::Every {
            period: 4,
            place: 3,
        };
        assert_eq!(attention(last, 9), [3, 7]);
        for (layers, place) in [(2, 1), (3, 2), (1, 0)] {
            assert_eq!(attention(last, layers), [place]);
        }
    }
}
