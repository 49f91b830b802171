//! Variables of the environment by which plugins on the kit go and that change what they compute, so that a
//! host can refuse values that mean nothing and write down which were in force. A plugin that goes by others
//! does not have its runs told apart.

use std::ffi::OsString;

/// How products are taken: `float32`, which holds where it is not set, `bf16` or, on a card, `tf32`.
pub const PRODUCTS: &str = "LONGHAUL_PRODUCTS";

/// Highest level of vectors on the processor: `v3` or `baseline`; all there are where it is not set.
pub const SIMD: &str = "LONGHAUL_SIMD";

/// Fills every buffer of a model with NaN before each run: `1`.
pub const POISON: &str = "LONGHAUL_POISON";

/// Keeps bands between a model's buffers on a card, and looks at them after each pass: `1`.
pub const GUARD: &str = "LONGHAUL_GUARD";

/// All that are known here.
pub const ALL: [&str; 4] = [PRODUCTS, SIMD, POISON, GUARD];

/// Kind of device, variable, and the value that is as good as none.
const CONSEQUENTIAL: [(&str, &str, &str); 3] = [
    ("cuda", PRODUCTS, "float32"),
    ("cpu", PRODUCTS, "float32"),
    ("cpu", SIMD, ""),
];

/// Values that each variable takes; an empty one is as good as none.
const VALUES: [(&str, &[&str]); 4] = [
    (PRODUCTS, &["float32", "tf32", "bf16"]),
    (SIMD, &["v3", "baseline"]),
    (POISON, &["1"]),
    (GUARD, &["1"]),
];

/// Refuses a value that no plugin on the kit knows. `get` reads a variable.
///
/// # Errors
/// The variable, its value, and what it takes.
pub fn check(get: impl Fn(&str) -> Option<OsString>) -> Result<(), String> {
    for (name, known) in VALUES {
        let value = get(name).unwrap_or_default();
        if !value.is_empty() && !known.iter().any(|known| *known == value) {
            return Err(format!(
                "{name}={} is unknown; it takes {}, or is not set",
                value.to_string_lossy(),
                known.join(" or ")
            ));
        }
    }
    Ok(())
}

/// Those that change what is computed on a kind of device, `cpu` or `cuda`, with their values. `get` reads one.
pub fn in_force(kind: &str, get: impl Fn(&str) -> Option<String>) -> Vec<(String, String)> {
    CONSEQUENTIAL
        .iter()
        .filter(|(of, _, _)| *of == kind)
        .filter_map(|(_, name, none)| {
            let value = get(name).filter(|value| !value.is_empty() && value != none);
            Some((*name, value?))
        })
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_mean_nothing_are_refused() {
        let with = |name: &'static str, value: &'static str| {
            check(move |asked| (asked == name).then(|| value.into()))
        };
        for (name, value) in [(SIMD, "v3"), (SIMD, ""), (PRODUCTS, "bf16"), (POISON, "1")] {
            assert_eq!(with(name, value), Ok(()));
        }
        for (name, value) in [
            (SIMD, "bogus"),
            (SIMD, "V3"),
            (PRODUCTS, "fp8"),
            (POISON, "0"),
        ] {
            let refusal = with(name, value).unwrap_err();
            assert!(
                refusal.contains(&format!("{name}={value} is unknown")),
                "{refusal}"
            );
        }
        assert_eq!(check(|_| None), Ok(()));
    }

    #[test]
    fn only_what_changes_something_is_in_force() {
        let all = |value: &str| {
            let value = value.to_owned();
            move |_: &str| Some(value.clone())
        };
        assert_eq!(in_force("cuda", |_| None), []);
        assert_eq!(in_force("cuda", all("float32")), []);
        let tf32 = (PRODUCTS.to_owned(), "tf32".to_owned());
        assert_eq!(in_force("cuda", all("tf32")), [tf32]);
        let only = |wanted: &'static str, value: &'static str| {
            move |name: &str| (name == wanted).then(|| value.to_owned())
        };
        for (name, value) in [(SIMD, "v3"), (PRODUCTS, "bf16")] {
            let expected = (name.to_owned(), value.to_owned());
            assert_eq!(in_force("cpu", only(name, value)), [expected]);
        }
        assert_eq!(in_force("cpu", only(PRODUCTS, "float32")), []);
        assert_eq!(in_force("cuda", only(SIMD, "v3")), []);
    }
}
