//! What the whole-program tests share: building what they run, and plugins built against other
//! versions of the ABI. The tests themselves are in `tests/`; nothing here may depend on the host's own code.

pub mod build;
pub mod card;
pub mod documents;
pub mod host;
pub mod in_process;
pub mod mutants;
pub mod versions;
