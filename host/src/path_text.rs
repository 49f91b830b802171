//! Paths in JSON and TOML without loss. A path is bytes: one that is UTF-8 is written as text, any other
//! as its list of bytes. For `#[serde(with = "crate::path_text")]`.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Text(String),
    Bytes(Vec<u8>),
}

/// Writes a path.
///
/// # Errors
/// The serializer's.
pub fn serialize<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    match path.to_str() {
        Some(text) => text.serialize(serializer),
        None => path.as_os_str().as_bytes().serialize(serializer),
    }
}

/// Reads what [`serialize`] wrote.
///
/// # Errors
/// Neither text nor a list of bytes.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
    Ok(match Written::deserialize(deserializer)? {
        Written::Text(text) => PathBuf::from(text),
        Written::Bytes(bytes) => PathBuf::from(OsString::from_vec(bytes)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Holder {
        #[serde(with = "crate::path_text")]
        path: PathBuf,
    }

    #[test]
    fn every_path_comes_back() {
        for bytes in [
            &b"a/b.so"[..],
            b"",
            b"o\xff/\xfe.so",
            "모/x".as_bytes(),
            b"a\n\"b",
        ] {
            let path = PathBuf::from(OsString::from_vec(bytes.to_vec()));
            let holder = Holder { path };
            let json = serde_json::to_string(&holder).unwrap();
            assert_eq!(serde_json::from_str::<Holder>(&json).unwrap(), holder);
            let toml = toml::to_string(&holder).unwrap();
            assert_eq!(toml::from_str::<Holder>(&toml).unwrap(), holder);
        }
        let json = serde_json::to_string(&Holder { path: "a".into() }).unwrap();
        assert_eq!(json, r#"{"path":"a"}"#);
    }
}
