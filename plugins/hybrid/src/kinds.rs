//! The kinds of layers: architectures of other plugins under the names that patterns use, with their options.

use longhaul_plugin_kit::Architecture;
use longhaul_plugin_kit::api::metadata::{OptionKind, OptionSpec, OptionValue};
use longhaul_plugin_kit::options::part;

/// Every kind. All but `attention`, which is `transformer`, have their architecture's name. What is a pattern of kinds
/// itself is not among them: `griffin` is `hawk` and `attention`, `xlstm` is `mlstm` and `slstm`.
pub fn all() -> Vec<(&'static str, Architecture)> {
    let architectures = [
        longhaul_lstm::architecture(),
        longhaul_mamba::architecture(),
        longhaul_mamba2::architecture(),
        longhaul_mamba2::log_linear(),
        longhaul_mamba::mamba3(),
        longhaul_griffin::hawk(),
        longhaul_delta::deltanet(),
        longhaul_delta::gated_deltanet(),
        longhaul_delta::delta_product(),
        longhaul_delta::kda(),
        longhaul_delta::gdn2(),
        longhaul_delta::comba(),
        longhaul_delta::mesa_net(),
        longhaul_linear_attention::linear_attention(),
        longhaul_linear_attention::retnet(),
        longhaul_linear_attention::lightning(),
        longhaul_linear_attention::gla(),
        longhaul_linear_attention::hgrn2(),
        longhaul_linear_attention::based(),
        longhaul_linear_attention::gsa(),
        longhaul_linear_attention::raven(),
        longhaul_min_rnn::mingru(),
        longhaul_min_rnn::minlstm(),
        longhaul_min_rnn::hgrn(),
        longhaul_min_rnn::gru(),
        longhaul_rwkv::rwkv4(),
        longhaul_rwkv::rwkv6(),
        longhaul_rwkv::rwkv7(),
        longhaul_s4::s4d(),
        longhaul_s4::s5(),
        longhaul_s4::lru(),
        longhaul_transformer::gated(),
        longhaul_transformer::fox(),
        longhaul_transformer::differential(),
        longhaul_transformer::path(),
        longhaul_xlstm::mlstm(),
        longhaul_xlstm::slstm(),
    ];
    let named = architectures.map(|architecture| (architecture.name, architecture));
    let attention = [("attention", longhaul_transformer::architecture())];
    attention.into_iter().chain(named).collect()
}

/// The options of some kinds, `kind.option`. `defaults` gives some of them another default, by that name.
///
/// # Panics
/// If a default is of no option or outside its limits.
pub fn options(
    kinds: &[(&'static str, Architecture)],
    defaults: &[(&str, &str)],
) -> Vec<OptionSpec> {
    let mut options: Vec<OptionSpec> = kinds
        .iter()
        .flat_map(|(kind, architecture)| part(kind, architecture.options.clone()))
        .collect();
    for (name, text) in defaults {
        let option = options.iter_mut().find(|option| option.name == *name);
        set_default(option.expect("an option of a kind"), text);
    }
    options
}

fn set_default(option: &mut OptionSpec, text: &str) {
    let value = option.parse(text).expect("a value within its limits");
    match (&mut option.kind, value) {
        (OptionKind::Integer { default, .. }, OptionValue::Integer(value)) => *default = value,
        (OptionKind::Float { default, .. }, OptionValue::Float(value)) => *default = value,
        (OptionKind::Boolean { default }, OptionValue::Boolean(value)) => *default = value,
        (
            OptionKind::Choice { default, .. } | OptionKind::Text { default },
            OptionValue::Text(value),
        ) => *default = value,
        _ => unreachable!("a parsed value is of its option's type"),
    }
}
