//! `longhaul check` passes on every library that is built here, on the variants whose recurrences or caches
//! differ, and on processors without AVX-512.

use std::ffi::OsStr;

use longhaul_tests::build::profile_folder;
use longhaul_tests::host::{command, finish, longhaul};

/// Every library loaded in a process of its own, by the checks that send most over that boundary: the whole suite at the
/// same default options is each plugin's own test, in-process.
#[test]
fn every_library_passes() {
    const ONLY: [&str; 8] = [
        "--only=build",
        "--only=training",
        "--only=resume",
        "--only=chunks",
        "--only=export",
        "--only=state-summary",
        "--only=errors",
        "--only=two-models",
    ];
    longhaul(["list"]).expect(0);
    for name in [
        "delta",
        "griffin",
        "hybrid",
        "hyena",
        "linear_attention",
        "lstm",
        "mamba",
        "mamba2",
        "min_rnn",
        "rwkv",
        "s4",
        "transformer",
        "ttt",
        "xlstm",
    ] {
        let library = profile_folder().join(format!("liblonghaul_{name}.so"));
        let words = ["check".as_ref(), library.as_os_str()];
        longhaul(words.into_iter().chain(ONLY.map(OsStr::new))).expect(0);
    }
}

#[test]
fn every_variant_passes() {
    for variant in [
        "comba:normalised=after,inner_decay=false,gate=false",
        "delta-product:householders=3,decay=false,negative_eigenvalues=false",
        "differential:heads=4,kv_heads=2,window=16,output_gate=true",
        "fox:kv_heads=1,qk_norm=true,output_gate=true,positions=rope",
        "gated-deltanet:negative_eigenvalues=true,value_heads=4,conv=1",
        "griffin:pattern=recurrent+attention,window=16",
        "hgrn:conv=3,lower_bound=false",
        "hybrid:pattern=lstm+mamba",
        "hybrid:pattern=attention,attention.window=8",
        "jamba:pattern=mamba+attention,attention.positions=alibi",
        "kda:negative_eigenvalues=true,decay_bound=-5,expand_v=0.5",
        "linear-attention:normalise=false,feature_map=relu,head_norm=true",
        "gla:conv=4",
        "log-linear-attention:levels=4,groups=2",
        "raven:router=softmax,decay=gla",
        "mamba:negative_eigenvalues=true",
        "mamba2:groups=2,chunk=16,norm_before_gate=true",
        "mamba3:a_activation=softplus,rope_fraction=1.0,groups=2,norm_before_gate=true,mimo_rank=2",
        "mingru:candidate=linear,bias=true",
        "mlstm:block=pre-up",
        "path:heads=4,kv_heads=2,rank=0,conv=0,qk_norm=true,forget_gate=scaled",
        "rwkv4:mlp=gated,embedding_norm=false",
        "slstm:conv=0,heads=2",
        "s5:discretisation=bilinear,blocks=2,glu=none",
        "transformer:positions=alibi",
        "transformer:positions=hard-alibi",
        "transformer:positions=learned",
        "transformer:positions=nope,window=16,kv_heads=1",
        "titans:momentum=false,decay=false,mini_batch=5",
        "ttt-linear:gate=true,share_qk=true,mini_batch=1",
    ] {
        longhaul(["check", variant]).expect(0);
    }
}

#[test]
fn a_check_can_be_left_out() {
    let words = ["check", "lstm", "--only", "gradients", "--json"];
    let with = |more: &[&str]| longhaul([&words[..], more].concat());
    let all = with(&[]).expect(0).stdout;
    let fewer = with(&["--skip", "lstm/gradients"]).expect(0).stdout;
    assert_eq!((all.lines().count(), fewer.lines().count()), (2, 1));
    assert!(fewer.contains("\"gradients-reach\""), "{fewer}");
    for unknown in ["gradients", "lstm/gradient", "gru/gradients"] {
        with(&["--skip", unknown]).expect(2).complains(&[
            &format!("--skip {unknown} names no check of lstm"),
            "ARCH/CHECK",
        ]);
    }
}

#[test]
fn every_recurrence_passes_at_lower_vector_levels() {
    for level in ["v3", "baseline"] {
        for architecture in [
            "griffin",
            "lstm",
            "mamba",
            "mamba2",
            "rwkv4",
            "rwkv7",
            "transformer",
        ] {
            let mut check = command(["check", architecture]);
            check.env("LONGHAUL_SIMD", level);
            let child = check.spawn().expect("the program starts");
            finish(child).expect(0);
        }
    }
}
