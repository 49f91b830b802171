//! Running a traced program on a CUDA device. [`device`] is what is asked of one,
//! [`driver`] a real one and [`cards`] those that are open, [`source`] the text of kernels and [`compiler`] what makes machine code of it; [`run`] is
//! what an operation sees; [`precision`](crate::precision) how exactly products are taken and [`storage`] how activations are
//! stored; [`memory`] lays out buffers and `ports`
//! inputs and results; [`model`], [`optimizer`] and `totals` train, [`session`] feeds and [`states`] is what it
//! carries, [`plugin`] is all of it behind the author's traits. A program is recorded once for a shape, kept in
//! `recordings` and replayed: a shape met again costs the host one upload and one replay. Kernels stand in
//! `kernels/` of the kit and of each plugin. `sums` and `touched` save launches: what a product adds in passing, and which
//! gradients nothing has written yet.

mod blas;
pub mod cards;
pub mod compiler;
pub mod device;
pub mod driver;
pub mod guards;
mod limits;
pub mod memory;
pub mod model;
pub mod optimizer;
pub mod plugin;
mod ports;
mod recordings;
pub mod rows;
pub mod run;
pub mod session;
pub mod source;
pub mod states;
pub mod storage;
pub(crate) mod sums;
mod totals;
pub(crate) mod touched;
mod turn;
mod uploads;
