//! Documents, whole and in order.

/// A document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Its file's name in the folder.
    pub name: String,
    /// What stands in it.
    pub text: String,
}

/// The documents of a folder, by name. One document is never joined to another here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Texts {
    /// What they are called in records.
    pub name: String,
    /// Hash of all names and texts, in hexadecimal.
    pub sha256: String,
    /// In order of their names; at least one, none empty.
    pub documents: Vec<Document>,
}
