//! Compiles the C++ that computes. `CXX` and `CXXFLAGS` choose the compiler and its flags.

fn main() {
    println!("cargo::rerun-if-changed=src/ema.cpp");
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .opt_level(3)
        .flag_if_supported("-fno-exceptions")
        .flag_if_supported("-fno-rtti")
        // Nothing of the C++ library is used but what the C library has: the plugin needs no libstdc++.
        .cpp_link_stdlib(None)
        .file("src/ema.cpp")
        .compile("ema");
    // exp, log, sqrt.
    println!("cargo::rustc-link-lib=m");
}
