//! Variables of the environment by which plugins on the kit go and that change what they compute, so that a
//! host can write down which were in force. A plugin that goes by others does not have its runs told apart.

/// How products are taken on a card: `float32`, which holds where it is not set, `tf32` or `bf16`.
pub const PRODUCTS: &str = "LONGHAUL_PRODUCTS";

/// Highest level of vectors on the processor: `v3` or `baseline`; all there are where it is not set.
pub const SIMD: &str = "LONGHAUL_SIMD";

/// Kind of device, variable, and the value that is as good as none.
const CONSEQUENTIAL: [(&str, &str, &str); 2] = [("cuda", PRODUCTS, "float32"), ("cpu", SIMD, "")];

/// Those that change what is computed on a kind of device, `cpu` or `cuda`, with their values. `get` reads one.
pub fn in_force(kind: &str, get: impl Fn(&str) -> Option<String>) -> Vec<(String, String)> {
    CONSEQUENTIAL
        .iter()
        .filter(|(of, _, _)| *of == kind)
        .filter_map(|(_, name, none)| Some((*name, get(name).filter(|value| value != none)?)))
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let v3 = (SIMD.to_owned(), "v3".to_owned());
        assert_eq!(in_force("cpu", all("v3")), [v3]);
    }
}
