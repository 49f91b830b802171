//! A `config.json` and the values in it.

use std::cell::RefCell;
use std::collections::BTreeSet;

use longhaul_plugin_api::author::Result;
use longhaul_plugin_api::checkpoint::standard_json;
use longhaul_plugin_api::error::PluginError;
use serde_json::Value;

use super::Format;
use super::keys::{HARMLESS, MEANINGFUL, says_nothing};

/// Largest size that is read from a config: far over any model's, and products of three still fit a word.
const MOST_SIZE: u64 = 1 << 20;

/// Longest text of a wrong value in a message, in characters.
const SHOWN: usize = 60;

/// A `config.json`, which notes the keys that are asked for.
pub struct Config {
    pub(super) value: Value,
    used: RefCell<BTreeSet<String>>,
    /// Keys inside objects that were read and have no part in what they say.
    beside: RefCell<Vec<String>>,
    /// `key=word+word` of keys that have one of several words, or a list of them.
    words: RefCell<Vec<String>>,
}

impl Config {
    pub(super) fn parse(text: &str) -> Result<Self> {
        let value: Value = serde_json::from_str(&standard_json(text)).map_err(|error| {
            PluginError::bad_option(format!("config.json is not JSON: {error}"))
        })?;
        if !value.is_object() {
            return Err(PluginError::bad_option(
                "config.json is not an object of keys and values",
            ));
        }
        Ok(Self {
            value,
            used: RefCell::default(),
            beside: RefCell::default(),
            words: RefCell::default(),
        })
    }

    /// Keys that were asked for.
    pub(super) fn used(&self) -> BTreeSet<String> {
        self.used.borrow().clone()
    }

    /// Keys that have one of several words, or a list of them, as `key=word+word`.
    pub(super) fn known_words(&self) -> Vec<String> {
        self.words.borrow().clone()
    }

    /// Notes a key inside an object that was read and has no part in what it says.
    pub(super) fn note_beside(&self, key: String) {
        self.beside.borrow_mut().push(key);
    }

    /// Names of the keys that nothing is known of and that say something.
    pub(super) fn unknown_keys(&self, format: &Format) -> Result<Vec<String>> {
        let mut unknown = self.beside.borrow().clone();
        let used = self.used();
        for (key, value) in self.value.as_object().into_iter().flatten() {
            let key = key.as_str();
            if used.contains(key) || HARMLESS.contains(&key) || format.harmless.contains(&key) {
                continue;
            }
            match MEANINGFUL.iter().find(|(known, _)| *known == key) {
                Some((_, neutral)) if neutral.is(value) => {}
                Some(_) => {
                    let expected = format!(
                        "absent, since this plugin computes a {} without it",
                        format.model_type
                    );
                    return Err(self.wrong(key, &expected));
                }
                None if says_nothing(value) => {}
                None => unknown.push(key.to_owned()),
            }
        }
        Ok(unknown)
    }

    /// A value by its key, or by keys joined with dots.
    pub(super) fn get(&self, key: &str) -> Option<&Value> {
        let top = key.split('.').next().unwrap_or(key);
        self.used.borrow_mut().insert(top.to_owned());
        key.split('.')
            .try_fold(&self.value, |value, part| value.get(part))
    }

    /// A value that is neither absent nor null.
    pub(super) fn find(&self, key: &str) -> Option<&Value> {
        self.get(key).filter(|value| !value.is_null())
    }

    pub(super) fn wrong(&self, key: &str, expected: &str) -> PluginError {
        PluginError::bad_option(match self.get(key) {
            Some(value) => {
                let mut text = value.to_string();
                if let Some((end, _)) = text.char_indices().nth(SHOWN) {
                    text.truncate(end);
                    text.push_str("..");
                }
                format!("`{key}` in config.json is {text}; it should be {expected}")
            }
            None => format!("config.json has no `{key}`, which should be {expected}"),
        })
    }

    /// Whether a key has a value other than null.
    pub fn has(&self, key: &str) -> bool {
        self.find(key).is_some()
    }

    /// What `read` makes of a key, or the default where the key is absent. Null is a value like others.
    fn or<T>(&self, key: &str, default: T, read: impl FnOnce() -> Result<T>) -> Result<T> {
        match self.get(key) {
            None => Ok(default),
            Some(_) => read(),
        }
    }

    /// A size of at least 1, and at most 2^20.
    ///
    /// # Errors
    /// If it is absent or no such number.
    pub fn size(&self, key: &str) -> Result<usize> {
        self.size_to(key, MOST_SIZE)
    }

    /// A size from 1 to `most`.
    pub(super) fn size_to(&self, key: &str, most: u64) -> Result<usize> {
        let size = self.get(key).and_then(Value::as_u64);
        size.filter(|size| (1..=most).contains(size))
            .map(|size| size as usize)
            .ok_or_else(|| self.wrong(key, &format!("a whole number from 1 to {most}")))
    }

    /// A size, or a default where it is absent.
    ///
    /// # Errors
    /// If it is no size.
    pub fn size_or(&self, key: &str, default: usize) -> Result<usize> {
        self.or(key, default, || self.size(key))
    }

    /// A size that may be null; where it is absent, what `absent` says. Absent and null are not the same:
    /// an absent key is the default of the format's own library.
    ///
    /// # Errors
    /// If it is neither a size nor null.
    pub fn optional_size(&self, key: &str, absent: Option<usize>) -> Result<Option<usize>> {
        match self.get(key) {
            None => Ok(absent),
            Some(Value::Null) => Ok(None),
            Some(_) => self.size(key).map(Some),
        }
    }

    /// A number, or a default where it is absent.
    ///
    /// # Errors
    /// If it is no number.
    pub fn float_or(&self, key: &str, default: f64) -> Result<f64> {
        self.or(key, default, || {
            let number = self.get(key).and_then(Value::as_f64);
            number.ok_or_else(|| self.wrong(key, "a number"))
        })
    }

    /// A number; none where it is absent or null.
    ///
    /// # Errors
    /// If it is no number.
    pub fn optional_number(&self, key: &str) -> Result<Option<f64>> {
        match self.has(key) {
            true => self.float_or(key, 0.0).map(Some),
            false => Ok(None),
        }
    }

    /// A number above 0, or a default where it is absent.
    ///
    /// # Errors
    /// If it is no such number.
    pub fn positive_or(&self, key: &str, default: f64) -> Result<f64> {
        let number = self.float_or(key, default)?;
        let fits = number.is_finite() && number > 0.0;
        self.expect(key, fits, "a number above 0")?;
        Ok(number)
    }

    /// Yes or no, or a default where it is absent.
    ///
    /// # Errors
    /// If it is neither.
    pub fn boolean_or(&self, key: &str, default: bool) -> Result<bool> {
        self.or(key, default, || {
            let word = self.get(key).and_then(Value::as_bool);
            word.ok_or_else(|| self.wrong(key, "true or false"))
        })
    }

    /// Refuses keys inside an object, which may be absent, that are not among these.
    ///
    /// # Errors
    /// No object; another key in it, by its name.
    pub fn expect_keys(&self, key: &str, known: &[&str]) -> Result<()> {
        let Some(value) = self.find(key) else {
            return Ok(());
        };
        self.expect(key, value.is_object(), "an object")?;
        for inside in value.as_object().into_iter().flat_map(|map| map.keys()) {
            let is_known = known.contains(&inside.as_str());
            let known = format!("absent; keys of it that are read are {}", known.join(", "));
            self.expect(&format!("{key}.{inside}"), is_known, &known)?;
        }
        Ok(())
    }

    /// Notes the words that a key, or each of its list, may be.
    fn note_words(&self, key: &str, known: &[&str]) {
        let pair = format!("{key}={}", known.join("+"));
        self.words.borrow_mut().push(pair);
    }

    /// A list of at least one of these words; none where it is absent or null.
    ///
    /// # Errors
    /// If it is no list, empty, or has another word.
    pub fn words_if_any(&self, key: &str, known: &[&str]) -> Result<Option<Vec<&str>>> {
        self.note_words(key, known);
        self.has(key).then(|| self.words(key, known)).transpose()
    }

    /// A list of at least one of these words.
    ///
    /// # Errors
    /// If it is absent, no list, empty, or has another word.
    pub fn words(&self, key: &str, known: &[&str]) -> Result<Vec<&str>> {
        let list = self.get(key).and_then(Value::as_array);
        let words: Option<Vec<&str>> =
            list.and_then(|list| list.iter().map(Value::as_str).collect());
        words
            .filter(|words| !words.is_empty() && words.iter().all(|word| known.contains(word)))
            .ok_or_else(|| self.wrong(key, &format!("a list of {}", known.join(" and "))))
    }

    /// A list of indices below `end`, the size that key `of` gives; empty where it is absent or null.
    ///
    /// # Errors
    /// If it is no such list.
    pub fn indices(&self, key: &str, end: usize, of: &str) -> Result<Vec<usize>> {
        let Some(value) = self.find(key) else {
            return Ok(Vec::new());
        };
        let index = |value: &Value| value.as_u64().filter(|&index| index < end as u64);
        let list = value.as_array().map(|list| list.iter().map(index));
        let list: Option<Vec<u64>> = list.and_then(Iterator::collect);
        let list =
            list.ok_or_else(|| self.wrong(key, &format!("a list of indices below `{of}`, {end}")))?;
        Ok(list.into_iter().map(|index| index as usize).collect())
    }

    /// One of these words; where it is absent, the first.
    ///
    /// # Errors
    /// If it is another.
    pub fn word_of<'a>(&self, key: &str, known: &[&'a str]) -> Result<&'a str> {
        self.note_words(key, known);
        self.expect_word(key, known)?;
        let word = self.get(key).and_then(Value::as_str);
        let word = known.iter().find(|known| word == Some(**known));
        Ok(word.unwrap_or(&known[0]))
    }

    /// Refuses a word that is not one of those supported; absent is allowed.
    ///
    /// # Errors
    /// If it is another.
    pub fn expect_word(&self, key: &str, supported: &[&str]) -> Result<()> {
        let word = self.get(key).map(Value::as_str);
        let fits = word.is_none_or(|word| word.is_some_and(|word| supported.contains(&word)));
        self.expect(key, fits, &supported.join(" or "))
    }

    /// Refuses a value that would need what is not supported.
    ///
    /// # Errors
    /// With the key and what is supported, unless `supported` says yes.
    pub fn expect(&self, key: &str, supported: bool, expected: &str) -> Result<()> {
        if supported {
            Ok(())
        } else {
            Err(self.wrong(key, expected))
        }
    }

    /// Refuses step sizes that are clamped: `time_step_limit` other than 0 to infinity.
    ///
    /// # Errors
    /// For such a limit.
    pub fn expect_free_time_step(&self) -> Result<()> {
        let key = "time_step_limit";
        let Some(limits) = self.get(key) else {
            return Ok(());
        };
        let limit = |index: usize| limits.as_array().filter(|list| list.len() == 2)?.get(index);
        let low = limit(0).and_then(Value::as_f64) == Some(0.0);
        // Written as Infinity, which JSON has not, in one of several ways.
        let high = limit(1).is_some_and(|limit| {
            let word = limit.get("__float__").unwrap_or(limit);
            word.as_str() == Some("Infinity") || limit.as_f64().is_some_and(|limit| limit > 1e30)
        });
        self.expect(key, low && high, "0 to infinity")
    }

    /// Refuses `layer_types` unless it says `kind` of every layer.
    ///
    /// # Errors
    /// Another kind; more or fewer layers than there are.
    pub fn expect_layers(&self, kind: &str, layers: usize) -> Result<()> {
        let key = "layer_types";
        if !self.has(key) {
            return Ok(());
        }
        let fits = self
            .words(key, &[kind])
            .is_ok_and(|words| words.len() == layers);
        self.expect(key, fits, &format!("{kind} for each of {layers} layers"))
    }
}
