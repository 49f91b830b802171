//! Initial values in both forms; the README has the sources of `init=reference`.

use longhaul_hyena::hyena;
use longhaul_plugin_kit::testing_initial::{Law, check_initial_values};

#[test]
fn every_parameter_starts_by_its_law() {
    for init in ["longhaul", "reference"] {
        let bias = |cols: f64| match init {
            "reference" => Law::Within(1.0 / cols.sqrt()),
            _ => Law::Constant(0.0),
        };
        let dense = |cols: f64| Law::Within(1.0 / cols.sqrt());
        let out = || match init {
            "reference" => dense(256.0),
            _ => dense(2.0 * 2.0 * 256.0),
        };
        let laws = [
            ("embedding.weight", Law::Normal(1.0 / 16.0)),
            ("head.weight", dense(256.0)),
            ("norm.weight", Law::Constant(1.0)),
            ("norm1.weight", Law::Constant(1.0)),
            ("mixer.in_proj.weight", dense(256.0)),
            ("mixer.in_proj.bias", bias(256.0)),
            ("mixer.short_filter.weight", dense(3.0)),
            ("mixer.short_filter.bias", bias(3.0)),
            ("mixer.out_proj.weight", out()),
            ("mixer.out_proj.bias", bias(256.0)),
            ("mixer.D0", Law::Normal(1.0)),
            ("mixer.D1", Law::Normal(1.0)),
            ("mixer.filter.frequency", Law::Constant(14.0)),
            ("mixer.filter.in0.weight", dense(33.0)),
            ("mixer.filter.in0.bias", bias(33.0)),
            ("mixer.filter.in1.weight", dense(64.0)),
            ("mixer.filter.in1.bias", bias(64.0)),
            ("mixer.filter.in2.weight", dense(64.0)),
            ("mixer.filter.in2.bias", bias(64.0)),
            ("mixer.filter.out0.weight", dense(64.0)),
            ("mixer.filter.out1.weight", dense(64.0)),
        ];
        let options = [("init", init), ("order", "3"), ("mlp", "none")];
        check_initial_values(&hyena(), &options, 256, 2, &laws);
    }
}
