//! Recurrences that several families of architectures share, a folder for each with one layout: `naive` is the
//! recurrence as it is written, in float64; `recurrent` computes it token by token on the CPU, `chunk` by matrix
//! products; `device` is its form for a card, with kernels in `kernels/`.

pub mod state_matrix;
