//! The rotary embedding of a config.

use longhaul_plugin_api::author::Result;
use serde_json::Value;

use super::Config;
use super::keys::says_nothing;
use super::plan::MOST_LENGTH;
use crate::ops::rotary_scaling::{Scaling, Turns};

/// A rotary embedding.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rotary {
    /// Base of the frequencies.
    pub base: f64,
    /// Share of a head that is rotated.
    pub share: f64,
    /// How its angles are scaled.
    pub scaling: Scaling,
}

impl Rotary {
    /// One without scaling.
    pub const fn plain(base: f64, share: f64) -> Self {
        let scaling = Scaling::None;
        Self {
            base,
            share,
            scaling,
        }
    }
}

/// Keys of an object that every type has.
const COMMON: [&str; 4] = ["rope_type", "type", "rope_theta", SHARE];
/// Keys of scaled types.
const YARN: [&str; 8] = [
    "factor",
    "original_max_position_embeddings",
    "attention_factor",
    "mscale",
    "mscale_all_dim",
    "beta_fast",
    "beta_slow",
    "truncate",
];
const LLAMA3: [&str; 4] = [
    "factor",
    "original_max_position_embeddings",
    "low_freq_factor",
    "high_freq_factor",
];
/// The share of a head that is rotated.
const SHARE: &str = "partial_rotary_factor";

impl Config {
    /// The rotary embedding. Its base, share and scaling may stand in `rope_parameters` or in the older
    /// `rope_scaling`, base and share also in keys of the config itself; the first two win over the last.
    ///
    /// # Errors
    /// A type or value that is not known; two objects that differ.
    pub fn rotary(&self, default: Rotary) -> Result<Rotary> {
        let mut rotary = Rotary {
            base: self.positive_or("rope_theta", default.base)?,
            share: self.positive_or(SHARE, default.share)?,
            scaling: default.scaling,
        };
        let Some(found) = self.rotary_object()? else {
            return Ok(rotary);
        };
        let types = ["default", "linear", "yarn", "llama3"];
        for key in ["rope_type", "type"] {
            self.expect_word(&format!("{found}.{key}"), &types)?;
        }
        let word = |key: &str| self.find(&format!("{found}.{key}")).and_then(Value::as_str);
        let (kind, known): (_, &[&str]) = match word("rope_type").or(word("type")) {
            Some("linear") => ("linear", &["factor"]),
            Some("yarn") => ("yarn", &YARN),
            Some("llama3") => ("llama3", &LLAMA3),
            _ => ("default", &[]),
        };
        for (key, value) in self
            .find(found)
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
        {
            let place = format!("{found}.{key}");
            self.expect(&place, !value.is_object(), "the same for all layers")?;
            let is_known = COMMON.contains(&key.as_str()) || known.contains(&key.as_str());
            if !is_known && !says_nothing(value) {
                self.note_beside(place);
            }
        }
        rotary.base = self.positive_or(&format!("{found}.rope_theta"), rotary.base)?;
        rotary.share = self.positive_or(&format!("{found}.{SHARE}"), rotary.share)?;
        rotary.scaling = self.scaling(found, kind)?;
        Ok(rotary)
    }

    /// The rotary embedding of a family that has no scaling.
    ///
    /// # Errors
    /// As [`Config::rotary`]; a scaling.
    pub fn plain_rotary(&self, default: Rotary) -> Result<Rotary> {
        let rotary = self.rotary(default)?;
        if rotary.scaling != Scaling::None {
            let found = self.rotary_object()?.unwrap_or_default();
            for key in ["rope_type", "type"] {
                self.expect_word(&format!("{found}.{key}"), &["default"])?;
            }
        }
        Ok(rotary)
    }

    /// The rotary embedding of a family that fixes the share of a head that is rotated.
    ///
    /// # Errors
    /// What [`Config::rotary`] refuses; another share.
    pub fn rotary_of_share(&self, default: Rotary) -> Result<Rotary> {
        for place in ["", "rope_parameters.", "rope_scaling."] {
            let key = format!("{place}{SHARE}");
            let share = self.float_or(&key, default.share)?;
            self.expect(&key, share == default.share, &default.share.to_string())?;
        }
        self.rotary(default)
    }

    /// The key of the object that says something.
    fn rotary_object(&self) -> Result<Option<&'static str>> {
        let mut found: Option<&'static str> = None;
        for name in ["rope_parameters", "rope_scaling"] {
            let Some(value) = self.find(name) else {
                continue;
            };
            self.expect(name, value.is_object(), "an object")?;
            if says_nothing(value) {
                continue;
            }
            let differs = found.is_some_and(|found| self.find(found) != Some(value));
            self.expect(name, !differs, "the same as rope_parameters, or absent")?;
            found = Some(name);
        }
        Ok(found)
    }

    /// The scaling of a type, as transformers reads it (`modeling_rope_utils.py`).
    fn scaling(&self, found: &str, kind: &str) -> Result<Scaling> {
        let place = |key: &str| format!("{found}.{key}");
        // Null is absent here.
        let number = |key: &str, absent: f64| match self.has(&place(key)) {
            true => self.positive_or(&place(key), absent),
            false => Ok(absent),
        };
        let needed = |key: &str| {
            self.expect(&place(key), self.has(&place(key)), "a number above 0")?;
            self.positive_or(&place(key), 1.0)
        };
        if kind == "default" {
            return Ok(Scaling::None);
        }
        let factor = |factor: f64| {
            let fits = factor >= 1.0;
            self.expect(&place("factor"), fits, "a number from 1")?;
            Ok(factor)
        };
        if kind == "linear" {
            let factor = factor(needed("factor")?)?;
            return Ok(Scaling::Linear { factor });
        }
        let original_length = self.original_length(&place("original_max_position_embeddings"))?;
        if kind == "llama3" {
            let turns = Turns {
                original_length,
                fast: needed("high_freq_factor")?,
                slow: needed("low_freq_factor")?,
            };
            let fits = turns.fast > turns.slow;
            self.expect(&place("high_freq_factor"), fits, "above low_freq_factor")?;
            let factor = factor(needed("factor")?)?;
            return Ok(Scaling::Llama3 { factor, turns });
        }
        let stretched = match self.has(&place("factor")) {
            true => needed("factor")?,
            false => self.length("max_position_embeddings")? / original_length,
        };
        let factor = factor(stretched)?;
        let shares = (number("mscale", 0.0)?, number("mscale_all_dim", 0.0)?);
        let by_share = |share: f64| 0.1 * share * factor.ln() + 1.0;
        let attention = match shares {
            (all, most) if all > 0.0 && most > 0.0 => by_share(all) / by_share(most),
            _ => Scaling::yarn_attention(factor),
        };
        let turns = Turns {
            original_length,
            fast: number("beta_fast", 32.0)?,
            slow: number("beta_slow", 1.0)?,
        };
        let fits = turns.fast > turns.slow;
        self.expect(&place("beta_fast"), fits, "above beta_slow")?;
        Ok(Scaling::Yarn {
            factor,
            turns,
            truncate: self.boolean_or(&place("truncate"), true)?,
            attention: number("attention_factor", attention)?,
        })
    }

    /// Length that a scaling starts from: the config's own key wins over the object's, as in transformers.
    fn original_length(&self, inside: &str) -> Result<f64> {
        let key = "original_max_position_embeddings";
        let places = [key, inside, "max_position_embeddings"];
        let place = places.into_iter().find(|place| self.has(place));
        self.length(place.unwrap_or(inside))
    }

    fn length(&self, key: &str) -> Result<f64> {
        Ok(self.size_to(key, MOST_LENGTH)? as f64)
    }
}
