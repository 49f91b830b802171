//! The conformance suite, in-process.

use longhaul_emulator::plugin::{Emulated, check};
use longhaul_plugin_kit::Architecture;
use longhaul_plugin_kit::model::Library;
use longhaul_transformer::{architecture, differential, fox, path};

longhaul_conformance::plugin!(longhaul_transformer::Plugin);

/// Some of the architectures.
macro_rules! part {
    ($name:ident: $($architecture:ident),+) => {
        struct $name;

        impl Library for $name {
            const NAME: &'static str = "longhaul-transformer";
            const VERSION: &'static str = env!("CARGO_PKG_VERSION");
            const LICENCE: &'static str = env!("CARGO_PKG_LICENSE");
            const AUTHORS: &'static str = env!("CARGO_PKG_AUTHORS");

            fn architectures() -> Vec<Architecture> {
                vec![$($architecture()),+]
            }
        }
    };
}

part! { Plain: architecture }

// Made of operations that have their own tests on the emulated device: the checks that reach all of a model.
part! { Others: fox, differential, path }

#[test]
fn conformance_on_the_emulated_device() {
    check::<Plain>();
}

#[test]
fn conformance_of_others_on_the_emulated_device() {
    let checks = ["build", "gradients", "chunks", "fork"];
    longhaul_conformance::run_in_process_only::<Emulated<Others>>(&checks);
}
