//! Running a traced program on a CUDA device. [`device`] is what is asked of one,
//! [`driver`] a real one, [`source`] the text of kernels and [`compiler`] what makes machine code of it; [`run`] is what an
//! operation sees; [`precision`] how exactly products are taken; [`memory`] lays out buffers; [`model`] and [`optimizer`] train, [`session`] feeds, [`plugin`] is
//! all of it behind the author's traits. A program is recorded
//! once for a shape and replayed. Kernels stand in `kernels/` of the kit and of each plugin.

mod blas;
pub mod compiler;
pub mod device;
pub mod driver;
pub mod memory;
pub mod model;
pub mod optimizer;
pub mod plugin;
pub mod precision;
pub mod rows;
pub mod run;
pub mod session;
pub mod source;
