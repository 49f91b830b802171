//! How many launches, products, fills and copies a recorded training step is. Each costs a card about a microsecond beside
//! its work, which is most of a small model's step.

use longhaul_plugin_kit::precision::Precision;
use longhaul_plugin_kit::testing_nodes::check_step_nodes;

#[test]
fn nodes_of_a_training_step() {
    check_step_nodes(&longhaul_lstm::architecture(), Precision::Float32, 56);
}
