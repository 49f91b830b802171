//! Every plugin exports the same symbols, and this one links other plugins' rlibs: of each symbol the
//! linker takes the first, which is this crate's own.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-link-arg=-Wl,-z,muldefs");
}
