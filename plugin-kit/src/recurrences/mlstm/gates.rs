//! The stabiliser, a running maximum whose past decays, and the gates relative to it. Each m is rounded once and the
//! gates are differences of rounded ones, so that it cancels exactly from what is read of the states.

use longhaul_plugin_api::author::Result;

use super::MLSTM;
use crate::cuda::device::{Launch, Ptr, Stored};
use crate::engine::graph::Graph;
use crate::engine::operation::{CudaRun, KernelSource, Operation, Run};
use crate::engine::tensor::{Buffer, State, StateSpec, Tensor};
use crate::kernel_params;

/// What is made of the gates, each `[B, T, H]`.
pub(super) struct Stabilised {
    /// `f_t + m_{t-1} - m_t`, the logarithm of a state's decay: at most 0, but for the rounding of m.
    pub decay: Tensor,
    /// `i_t - m_t`, the logarithm of the factor of what is written: at most 0.
    pub write: Tensor,
    /// m. Its gradient is that of the whole model by m: what reads a state gives none, since m cancels there.
    pub stabiliser: Tensor,
}

/// Records the stabiliser of input and forget gates, `[B, T, H]` as logarithms.
pub(super) fn record(graph: &mut Graph, input: Tensor, forget: Tensor) -> Stabilised {
    let heads = input.cols();
    let [decay, write, stabiliser] = std::array::from_fn(|_| graph.tensor(heads));
    let state = graph.state(StateSpec::Fixed {
        values: heads,
        initial: 0.0,
    });
    graph.push(Gates {
        input,
        forget,
        decay,
        write,
        stabiliser,
        state,
    });
    Stabilised {
        decay,
        write,
        stabiliser,
    }
}

struct Gates {
    input: Tensor,
    forget: Tensor,
    decay: Tensor,
    write: Tensor,
    stabiliser: Tensor,
    /// m, H values a row.
    state: State,
}

kernel_params! {
    pub(super) struct MlstmGates {
        input: *const Stored, forget: *const Stored,            // [B, T, H], logarithms
        decay: *mut Stored, write: *mut Stored, m: *mut Stored, // [B, T, H]: f + m before - m, i - m, m
        state: *mut f32,                                        // [B, H]: m of the last token; null in training
        input_stride: u64, forget_stride: u64,
        rows: u32, length: u32, heads: u32, unused: u32,
    }
}

kernel_params! {
    pub(super) struct MlstmGatesBackward {
        write: *const Stored,                                                        // [B, T, H]
        grad_decay: *const Stored, grad_write: *const Stored, grad_m: *const Stored, // [B, T, H]
        grad_input: *mut Stored, grad_forget: *mut Stored,                           // [B, T, H]
        grad_input_stride: u64, grad_forget_stride: u64,
        rows: u32, length: u32, heads: u32, add_input: u32, add_forget: u32, unused: u32,
    }
}

impl Gates {
    /// Adds the gradient of one of the two gates: its own, and that of every m that came from it.
    fn gradient(&self, run: &Run<'_>, gate: Tensor, own: Tensor) {
        let (rows, length, heads) = (run.rows(), run.length(), gate.cols());
        let (write, own, grad_m) = (
            run.value(self.write),
            run.grad(own),
            run.grad(self.stabiliser),
        );
        let (write, own, grad_m) = (write.get(), own.get(), grad_m.get());
        let mut place = run.grad_mut(gate);
        let add = place.accumulate();
        let mut carried = vec![0.0f32; heads];
        for row in 0..rows {
            carried.fill(0.0);
            for at in (row * length..(row + 1) * length).rev() {
                let place = place.row_mut(at);
                for head in 0..heads {
                    let whole = carried[head] + grad_m.row(at)[head];
                    // m is the input gate where what is written is not made smaller.
                    let from_input = write.row(at)[head] == 0.0;
                    carried[head] = if from_input { 0.0 } else { whole };
                    let share = if from_input == (gate == self.input) {
                        whole
                    } else {
                        0.0
                    };
                    let old = if add { place[head] } else { 0.0 };
                    place[head] = old + own.row(at)[head] + share;
                }
            }
        }
    }
}

impl Operation for Gates {
    fn name(&self) -> &'static str {
        "mlstm_gates"
    }

    fn forward(&self, run: &Run<'_>) -> Result<()> {
        let (rows, length, heads) = (run.rows(), run.length(), self.input.cols());
        let (input, forget) = (run.value(self.input), run.value(self.forget));
        let (input, forget) = (input.get(), forget.get());
        let mut decay = run.value_mut(self.decay);
        let mut write = run.value_mut(self.write);
        let mut m = run.value_mut(self.stabiliser);
        let mut state = run.state(self.state);
        let mut before = vec![0.0f32; heads];
        for row in 0..rows {
            match &state {
                Some(state) => before.copy_from_slice(&state[row]),
                None => before.fill(0.0),
            }
            for at in row * length..(row + 1) * length {
                let (input, forget) = (input.row(at), forget.row(at));
                let (decay, write) = (decay.row_mut(at), write.row_mut(at));
                for head in 0..heads {
                    let (i, f, old) = (input[head], forget[head], before[head]);
                    let new = (f + old).max(i);
                    decay[head] = (f64::from(f) + f64::from(old) - f64::from(new)) as f32;
                    write[head] = (f64::from(i) - f64::from(new)) as f32;
                    before[head] = new;
                }
                m.row_mut(at).copy_from_slice(&before);
            }
            if let Some(state) = &mut state {
                state[row].copy_from_slice(&before);
            }
        }
        Ok(())
    }

    fn uses(&self) -> Option<Vec<Buffer>> {
        let all = [
            self.input,
            self.forget,
            self.decay,
            self.write,
            self.stabiliser,
        ];
        Some(all.map(Buffer::from).to_vec())
    }

    fn backward(&self, run: &Run<'_>) -> Result<()> {
        self.gradient(run, self.input, self.write);
        self.gradient(run, self.forget, self.decay);
        Ok(())
    }

    fn trains_from_state(&self) -> bool {
        true
    }

    fn kernels(&self) -> Vec<&'static KernelSource> {
        vec![&MLSTM]
    }

    fn cuda_forward(&self, run: &CudaRun<'_>) -> Result<()> {
        let (input, forget) = (run.value(self.input), run.value(self.forget));
        let state = run.state(self.state);
        let params = MlstmGates {
            input: input.data,
            forget: forget.data,
            decay: run.value(self.decay).data,
            write: run.value(self.write).data,
            m: run.value(self.stabiliser).data,
            state: state.map_or(Ptr::default(), |state| state.data),
            input_stride: input.stride as u64,
            forget_stride: forget.stride as u64,
            rows: run.rows() as u32,
            length: run.length() as u32,
            heads: input.cols as u32,
            unused: 0,
        };
        let launch = Launch::for_each(run.rows() * input.cols);
        run.launch(&MLSTM, "mlstm_gates", launch, &params)
    }

    fn cuda_backward(&self, run: &CudaRun<'_>) -> Result<()> {
        let (grad_input, add_input) = run.grad_mut(self.input)?;
        let (grad_forget, add_forget) = run.grad_mut(self.forget)?;
        let params = MlstmGatesBackward {
            write: run.value(self.write).data,
            grad_decay: run.grad(self.decay)?.data,
            grad_write: run.grad(self.write)?.data,
            grad_m: run.grad(self.stabiliser)?.data,
            grad_input: grad_input.data,
            grad_forget: grad_forget.data,
            grad_input_stride: grad_input.stride as u64,
            grad_forget_stride: grad_forget.stride as u64,
            rows: run.rows() as u32,
            length: run.length() as u32,
            heads: grad_input.cols as u32,
            add_input: add_input.into(),
            add_forget: add_forget.into(),
            unused: 0,
        };
        let launch = Launch::for_each(run.rows() * grad_input.cols);
        run.launch(&MLSTM, "mlstm_gates_backward", launch, &params)
    }
}
