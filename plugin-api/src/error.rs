//! The one error type that crosses the boundary. It holds words for a user, never a plugin's own types.

use abi_stable::StableAbi;
use abi_stable::std_types::RString;

/// What went wrong, coarse enough for the host to choose a status by.
#[repr(u8)]
#[derive(StableAbi, Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// An option, shape or value that the plugin does not accept. The message names it and its limits.
    BadOption,
    /// Something this plugin, architecture or device cannot do.
    Unsupported,
    /// Host or device memory ran out.
    OutOfMemory,
    /// The device failed or is absent.
    Device,
    /// A value that is not finite.
    Numeric,
    /// A bug in the plugin, a caught panic included.
    Internal,
}

impl ErrorKind {
    /// The kind in a few words, for messages.
    pub fn words(self) -> &'static str {
        match self {
            Self::BadOption => "bad option",
            Self::Unsupported => "unsupported",
            Self::OutOfMemory => "out of memory",
            Self::Device => "device error",
            Self::Numeric => "numeric error",
            Self::Internal => "error in the plugin's code",
        }
    }
}

/// An error with a message that a user can act on.
#[repr(C)]
#[derive(StableAbi, Debug, Clone, PartialEq, Eq)]
pub struct PluginError {
    /// The kind of failure.
    pub kind: ErrorKind,
    /// What was wrong, where, and what to do.
    pub message: RString,
}

impl PluginError {
    /// An error of a kind with a message.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: RString::from(message.into()),
        }
    }

    /// A refused option, shape or value.
    pub fn bad_option(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::BadOption, message)
    }

    /// Something that cannot be done here.
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unsupported, message)
    }

    /// What a device or its driver refused.
    pub fn device(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Device, message)
    }

    /// A loss and gradient norm that are not both finite, at a step of a training or outside of one. An
    /// update can only have led there where there was one before.
    pub fn not_finite(loss: f64, gradient_norm: f64, step: Option<u64>) -> Self {
        let remedy = match step {
            Some(1..) => "try a smaller learning rate",
            _ => {
                "no update came before, so an output or a buffer was not written, or starts from what it held"
            }
        };
        Self::new(
            ErrorKind::Numeric,
            format!("loss {loss} and gradient norm {gradient_norm} are not both finite; {remedy}"),
        )
    }

    /// The same error with the part of the plugin that it comes from in front, where that is a bug of
    /// the plugin; what a user can mend is said without.
    #[must_use]
    pub fn within(self, place: &str) -> Self {
        match self.kind {
            ErrorKind::Internal => Self::internal(format!("{place}: {}", self.message)),
            _ => self,
        }
    }

    /// A bug in the plugin.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }
}

impl std::fmt::Display for PluginError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.kind.words(), self.message)
    }
}

impl std::error::Error for PluginError {}
