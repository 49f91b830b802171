//! How exactly a device multiplies: one setting for matrix products and for the kernels that have a form on
//! tensor cores. How values are stored is [`storage`](crate::cuda::storage).
//!
//! A card has one precision. On the processor a model has one, which its threads hold while they work for it, so
//! that a reference form beside a model at bf16 stays at float32.

use std::cell::Cell;

use longhaul_plugin_api::author::Result;
use longhaul_plugin_api::error::PluginError;
use longhaul_plugin_api::variables::PRODUCTS as VARIABLE;

thread_local! {
    static HELD: Cell<Precision> = const { Cell::new(Precision::Float32) };
}

/// What factors are rounded to before they are multiplied. Sums are float32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Precision {
    /// Nothing: products are strict.
    #[default]
    Float32,
    /// TF32, 10 bits after the leading one.
    Tf32,
    /// bfloat16, 7 bits after the leading one.
    Bf16,
}

impl Precision {
    /// What `LONGHAUL_PRODUCTS` asks for: `float32`, `tf32` or `bf16`. Without it, float32.
    ///
    /// # Errors
    /// Another value.
    pub fn from_environment() -> Result<Self> {
        Self::named(std::env::var_os(VARIABLE).as_deref())
    }

    fn named(name: Option<&std::ffi::OsStr>) -> Result<Self> {
        match name.map(std::ffi::OsStr::to_string_lossy).as_deref() {
            None | Some("" | "float32") => Ok(Self::Float32),
            Some("tf32") => Ok(Self::Tf32),
            Some("bf16") => Ok(Self::Bf16),
            Some(other) => Err(PluginError::bad_option(format!(
                "{VARIABLE}={other} is unknown; write float32, tf32 or bf16"
            ))),
        }
    }

    /// What `LONGHAUL_PRODUCTS` asks for, as a processor has it.
    ///
    /// # Errors
    /// Another value, and `tf32`.
    pub fn of_processor() -> Result<Self> {
        match Self::from_environment()? {
            Self::Tf32 => Err(PluginError::bad_option(format!(
                "{VARIABLE}=tf32 asks for products on tensor cores, which a processor has not; write bf16 or float32"
            ))),
            other => Ok(other),
        }
    }

    /// That of the products which the calling thread takes; float32 where nothing else is held.
    pub fn held() -> Self {
        HELD.get()
    }

    /// Holds for the calling thread from now on.
    pub fn hold(self) {
        HELD.set(self);
    }

    /// Holds for the calling thread until `work` is done.
    pub fn during<R>(self, work: impl FnOnce() -> R) -> R {
        struct Before(Precision);
        impl Drop for Before {
            fn drop(&mut self) {
                self.0.hold();
            }
        }
        let _before = Before(HELD.replace(self));
        work()
    }

    /// Whether a card of compute capability `architecture`, such as 90, multiplies so.
    ///
    /// # Errors
    /// It is older than 8.0, and another precision than float32 is asked for.
    pub fn check(self, architecture: u32) -> Result<()> {
        if self == Self::Float32 || architecture >= 80 {
            return Ok(());
        }
        Err(PluginError::bad_option(format!(
            "{VARIABLE} asks for products on tensor cores, which need compute capability 8.0; this card has {}.{}; write float32",
            architecture / 10,
            architecture % 10
        )))
    }

    /// A factor as it is multiplied: to the nearest, ties to even for bfloat16 and away from zero for TF32.
    #[inline(always)]
    pub fn round(self, value: f32) -> f32 {
        let bits = value.to_bits();
        match self {
            _ if value.is_nan() => f32::NAN,
            Self::Float32 => value,
            Self::Tf32 => f32::from_bits((bits + 0x1000) & !0x1fff),
            Self::Bf16 => f32::from_bits((bits + 0x7fff + (bits >> 16 & 1)) & !0xffff),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_are_strict_unless_asked_for() {
        let named = |name: Option<&str>| Precision::named(name.map(std::ffi::OsStr::new));
        assert_eq!(named(None).expect("a default"), Precision::Float32);
        assert_eq!(Precision::default(), Precision::Float32);
        assert_eq!(named(Some("float32")).expect("known"), Precision::Float32);
        assert_eq!(named(Some("tf32")).expect("known"), Precision::Tf32);
        assert_eq!(named(Some("bf16")).expect("known"), Precision::Bf16);
        let refused = named(Some("fp8")).expect_err("unknown");
        assert!(refused.message.contains("LONGHAUL_PRODUCTS=fp8"));
        assert!(refused.message.contains("float32, tf32 or bf16"));
    }

    #[test]
    fn old_cards_have_no_such_tensor_cores() {
        assert!(Precision::Float32.check(75).is_ok());
        assert!(Precision::Bf16.check(80).is_ok() && Precision::Tf32.check(100).is_ok());
        let refused = Precision::Bf16.check(75).expect_err("too old");
        assert!(refused.message.contains("this card has 7.5; write float32"));
    }

    #[test]
    fn factors_are_rounded_to_the_nearest() {
        let third = 1.0f32 / 3.0;
        assert_eq!(Precision::Float32.round(third), third);
        assert_eq!(Precision::Tf32.round(third).to_bits(), 0x3eaa_a000);
        assert_eq!(Precision::Bf16.round(third).to_bits(), 0x3eab_0000);
        assert_eq!(Precision::Bf16.round(f32::INFINITY), f32::INFINITY);
        assert_eq!(Precision::Bf16.round(f32::MAX), f32::INFINITY);
        for payload in [1, 0x7f_ffff] {
            let nan = f32::from_bits(0x7f80_0000 | payload);
            assert!(Precision::Tf32.round(nan).is_nan() && Precision::Bf16.round(nan).is_nan());
        }
    }

    #[test]
    fn a_precision_is_held_until_work_is_done() {
        assert_eq!(Precision::held(), Precision::Float32);
        let panicked = std::panic::catch_unwind(|| {
            Precision::Bf16.during(|| {
                Precision::Float32.during(|| assert_eq!(Precision::held(), Precision::Float32));
                assert_eq!(Precision::held(), Precision::Bf16);
                panic!("inside");
            })
        });
        assert!(panicked.is_err());
        assert_eq!(Precision::held(), Precision::Float32);
    }
}
