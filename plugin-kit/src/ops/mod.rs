//! The kit's operations. Each file adds its methods to [`Graph`](crate::engine::graph::Graph) and
//! holds forward and backward beside each other.

pub mod attention;
mod attention_cuda;
mod attention_mma;
mod attention_naive;
mod attention_tile;
mod block_linear;
mod by_head;
mod concatenate;
pub(crate) mod constant;
mod convolution;
mod convolution_cuda;
pub mod elementwise;
mod embedding;
mod embedding_cuda;
mod head;
mod head_cuda;
mod linear;
mod lower_bound;
pub mod norm;
mod norm_cuda;
pub mod path;
pub mod positions;
mod previous;
mod rotary;
pub mod rotary_scaling;
mod running_sum;
mod shares;
mod step_sizes;
pub mod taylor;
pub(crate) mod token_order;
mod turned_heads;
