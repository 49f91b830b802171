//! The one grammar of names with options, `name:option=value,option=value`, in which tasks and
//! architectures are given. What names and options there are is not known here.

/// A name and its options, in the order of the text; no option stands there twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// What stands before the `:`.
    pub name: String,
    /// Option and value.
    pub options: Vec<(String, String)>,
}

/// Why a text is no name with options.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum NamedError {
    /// Nothing stands before the options.
    #[error("`{text}` has no name; write name:option=value,option=value")]
    NoName {
        /// What was given.
        text: String,
    },
    /// A part that is not `option=value`.
    #[error("`{part}` in `{text}` is not of the form option=value")]
    NoPair {
        /// What stands there.
        part: String,
        /// What was given.
        text: String,
    },
    /// An option that stands there more than once.
    #[error("`{text}` gives option `{option}` twice; leave one of the two")]
    Twice {
        /// The option.
        option: String,
        /// What was given.
        text: String,
    },
}

impl Named {
    /// Reads a name with options; spaces around the parts and empty parts do not count.
    ///
    /// # Errors
    /// Text of another form; an option given twice.
    pub fn parse(text: &str) -> Result<Self, NamedError> {
        let (name, rest) = text.split_once(':').unwrap_or((text, ""));
        let text = || text.to_owned();
        if name.trim().is_empty() {
            return Err(NamedError::NoName { text: text() });
        }
        let mut options = Vec::<(String, String)>::new();
        for part in rest
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
        {
            let (option, value) = part.split_once('=').ok_or_else(|| NamedError::NoPair {
                part: part.to_owned(),
                text: text(),
            })?;
            let option = option.trim().to_owned();
            if options.iter().any(|(other, _)| *other == option) {
                return Err(NamedError::Twice {
                    option,
                    text: text(),
                });
            }
            options.push((option, value.trim().to_owned()));
        }
        Ok(Self {
            name: name.trim().to_owned(),
            options,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_options() {
        let named = Named::parse(" mqar : pairs = 4 ,, vocab=64,").unwrap();
        assert_eq!(named.name, "mqar");
        let pairs = [("pairs", "4"), ("vocab", "64")];
        let pairs = pairs.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(named.options, pairs);
        assert_eq!(Named::parse("lstm").unwrap().options, []);
        // Values may hold what stands between other parts.
        let named = Named::parse("hybrid:pattern=a=b:c").unwrap();
        assert_eq!(named.options[0].1, "a=b:c");
    }

    #[test]
    fn other_text_is_refused_with_its_part() {
        let refusal = |text: &str| Named::parse(text).unwrap_err().to_string();
        assert!(refusal(":a=1").contains("has no name"));
        assert!(refusal("").contains("has no name"));
        assert!(refusal("a:b=1,c").contains("`c` in `a:b=1,c`"));
        assert!(refusal("a:b=1,c=2, b =1").contains("option `b` twice"));
    }
}
