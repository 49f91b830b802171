//! Where a new plugin takes the kit from: a checkout on this machine, or a revision of a repository that
//! anybody can build from.

use std::path::{Component, Path, PathBuf};

use crate::exit::CommandError;

/// A source of the kit's packages.
#[derive(Debug, PartialEq)]
pub(super) enum Kit {
    /// A checkout's root.
    Checkout(PathBuf),
    /// A repository and a revision of it.
    Git { url: String, rev: String },
}

impl Kit {
    /// Reads `--kit`: a folder, or `git+URL#REV`; without it the checkout that this program was built from.
    ///
    /// # Errors
    /// A folder that is no checkout, an address without a revision.
    pub(super) fn parse(given: Option<&str>) -> Result<Self, CommandError> {
        if let Some(address) = given.and_then(|given| given.strip_prefix("git+")) {
            return Self::parse_git(address);
        }
        let built = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
        let root = given.map(Path::new).or(built).unwrap_or(Path::new("."));
        let whole = root.canonicalize().ok().filter(|root| is_checkout(root));
        whole.map(Self::Checkout).ok_or_else(|| {
            CommandError::usage(format!(
                "{} is not a checkout of Longhaul: it has no plugin-kit/Cargo.toml; give one with --kit DIR, or a \
                 repository with --kit git+URL#REV",
                root.display()
            ))
        })
    }

    fn parse_git(address: &str) -> Result<Self, CommandError> {
        let (url, rev) = address.rsplit_once('#').unwrap_or((address, ""));
        let is_rev = |c: char| c.is_ascii_alphanumeric() || "._/-".contains(c);
        if url.is_empty()
            || url.contains(char::is_whitespace)
            || rev.is_empty()
            || !rev.chars().all(is_rev)
        {
            return Err(CommandError::usage(format!(
                "`git+{address}` names no revision of a repository; write git+URL#REV with a tag or a commit, so \
                 that everybody builds against the same kit"
            )));
        }
        Ok(Self::Git {
            url: url.to_owned(),
            rev: rev.to_owned(),
        })
    }

    /// The value of a dependency on the package in `folder` of the checkout, as a manifest in `from` has it.
    ///
    /// # Errors
    /// A path that is not UTF-8, as a manifest must be.
    pub(super) fn dependency(&self, folder: &str, from: &Path) -> Result<String, CommandError> {
        let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
        match self {
            Self::Git { url, rev } => Ok(format!(
                "{{ git = {}, rev = {} }}",
                quoted(url),
                quoted(rev)
            )),
            Self::Checkout(root) => {
                let path = relative(from, &root.join(folder));
                let path = path.to_str().ok_or_else(|| {
                    CommandError::usage(format!(
                        "{} is not UTF-8, and cargo's manifests are; name a checkout elsewhere with --kit",
                        path.display()
                    ))
                })?;
                Ok(format!("{{ path = {} }}", quoted(path)))
            }
        }
    }
}

/// Whether a folder is the root of a checkout.
pub(super) fn is_checkout(folder: &Path) -> bool {
    folder.join("plugin-kit/Cargo.toml").is_file()
}

/// The way from a folder to a place, both absolute and without links.
fn relative(from: &Path, to: &Path) -> PathBuf {
    let (from, to): (Vec<_>, Vec<_>) = (from.components().collect(), to.components().collect());
    let shared = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
    let up = from[shared..].iter().map(|_| Component::ParentDir);
    up.chain(to[shared..].iter().copied()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_is_named_with_a_revision() {
        let kit = Kit::parse(Some("git+https://example.org/a#b.git#v1.2")).expect("both are there");
        let expected = r#"{ git = "https://example.org/a#b.git", rev = "v1.2" }"#;
        let got = kit.dependency("plugin-kit", Path::new("/x"));
        assert_eq!(got.expect("UTF-8"), expected);
        for bad in [
            "git+",
            "git+https://example.org/a",
            "git+https://e.org/a#",
            "git+#v1",
            "git+a b#v1",
        ] {
            let error = Kit::parse(Some(bad)).expect_err(bad);
            assert!(error.message.contains("git+URL#REV"), "{error}");
        }
    }

    #[test]
    fn a_checkout_is_named_from_where_the_crate_lies() {
        let kit = Kit::Checkout("/home/a/long \"haul".into());
        let from = |folder: &str| {
            kit.dependency("plugin-kit", Path::new(folder))
                .expect("UTF-8")
        };
        let read = |text: String| {
            let table: toml::Table = format!("kit = {text}").parse().expect("a manifest's line");
            table["kit"]["path"].as_str().expect("a path").to_owned()
        };
        assert_eq!(read(from("/home/a/mine")), "../long \"haul/plugin-kit");
        assert_eq!(
            read(from("/tmp/mine")),
            "../../home/a/long \"haul/plugin-kit"
        );
        assert_eq!(
            read(from("/home/a/long \"haul/plugins/mine")),
            "../../plugin-kit"
        );
    }
}
