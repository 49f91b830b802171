//! The text of a kernel source as compilers get it: `common.cuh` in front, and `mma.cuh` where it is asked for.

use super::device::{KernelSource, Struct};
use super::run::Control;
use super::storage::Storage;

/// What is in front of every kernel source.
const COMMON: &str = include_str!("../../kernels/common.cuh");

/// The kit's texts that a source asks for by a line of its own, `#include "NAME"`.
const ON_REQUEST: [(&str, &str); 1] = [("mma.cuh", include_str!("../../kernels/mma.cuh"))];

/// The declarations of its kernels' parameters, then a source itself.
pub fn own_text(source: &KernelSource) -> String {
    let params: String = source.params.iter().map(Struct::to_string).collect();
    format!("{params}#line 1 \"{}\"\n{}", source.file, source.text)
}

/// A source as it is compiled for a storage. What it includes of the kit's stands before it, so its lines keep their
/// numbers.
pub fn whole_text(source: &KernelSource, storage: Storage) -> String {
    let definition = storage.definition();
    let mut whole = format!(
        "{definition}#line 1 \"common.cuh\"\n{COMMON}\n{}",
        Control::CPP
    );
    let mut text = own_text(source);
    for (name, included) in ON_REQUEST {
        let line = format!("\n#include \"{name}\"\n");
        if text.contains(&line) {
            whole += &format!("#line 1 \"{name}\"\n{included}\n");
            text = text.replace(&line, "\n\n");
        }
    }
    whole + &text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &'static str) -> String {
        let source = KernelSource {
            file: "some.cu",
            text,
            params: &[],
        };
        whole_text(&source, Storage::Float32)
    }

    #[test]
    fn products_stand_where_they_are_asked_for() {
        assert!(!of("// plain\nint a;\n").contains("mma_16x8x16"));
        let text = of("// first\n#include \"mma.cuh\"\nint third;\n");
        let (kit, own) = text.split_once("#line 1 \"some.cu\"\n").expect("a name");
        assert!(kit.contains("#define WARP 32") && kit.contains("void mma_16x8x16("));
        assert_eq!(own.lines().nth(2), Some("int third;"));
    }
}
