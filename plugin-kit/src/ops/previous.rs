//! What stood at the position before.

use longhaul_plugin_api::author::Result;

use crate::cuda::device::{Launch, Ptr, Stored};
use crate::engine::graph::Graph;
use crate::engine::operation::{CudaRun, KernelSource, Operation, Run};
use crate::engine::tensor::{Buffer, State, StateSpec, Tensor};
use crate::kernel_params;
use crate::simd::add_into;

static SOURCE: KernelSource = KernelSource {
    file: "previous.cu",
    text: include_str!("../../kernels/previous.cu"),
    params: &[PreviousParams::CPP],
};

kernel_params! {
    struct PreviousParams {
        x: *mut Stored,  // [B, T, cols], or its gradient
        y: *mut Stored,  // [B, T, cols], or its gradient
        state: *mut f32, // [B, cols] or null: the last x
        x_stride: u64, y_stride: u64, rows: u64, length: u64,
        cols: u32, accumulate: u32,
    }
}

impl Graph {
    /// x of the position before, and 0 before the first. Its state is the last x.
    ///
    /// # Panics
    /// If x is a constant.
    #[track_caller]
    pub fn previous(&mut self, x: Tensor) -> Tensor {
        assert!(!x.is_constant(), "a constant has no position before");
        let y = self.tensor(x.cols());
        let state = self.state(StateSpec::Fixed {
            values: x.cols(),
            initial: 0.0,
        });
        self.push(Previous { x, state, y });
        y
    }
}

struct Previous {
    x: Tensor,
    /// `[cols]` a row.
    state: State,
    y: Tensor,
}

impl Operation for Previous {
    fn name(&self) -> &'static str {
        "previous"
    }

    fn forward(&self, run: &Run<'_>) -> Result<()> {
        let length = run.length();
        let x = run.value(self.x);
        let x = x.get();
        let mut y = run.value_mut(self.y);
        let mut state = run.state(self.state);
        for row in 0..run.rows() * length {
            let place = y.row_mut(row);
            match (row % length, &state) {
                (0, Some(state)) => place.copy_from_slice(&state[row / length]),
                (0, None) => place.fill(0.0),
                _ => place.copy_from_slice(x.row(row - 1)),
            }
        }
        if let Some(state) = &mut state {
            for (row, state) in state.iter_mut().enumerate() {
                state.copy_from_slice(x.row((row + 1) * length - 1));
            }
        }
        Ok(())
    }

    fn uses(&self) -> Option<Vec<Buffer>> {
        Some(vec![self.x.into(), self.y.into()])
    }

    fn backward(&self, run: &Run<'_>) -> Result<()> {
        let length = run.length();
        let grad_y = run.grad(self.y);
        let grad_y = grad_y.get();
        let mut grad = run.grad_mut(self.x);
        let accumulate = grad.accumulate();
        for row in 0..run.rows() * length {
            let place = grad.row_mut(row);
            // The last token's successor is not in this run.
            match (row % length + 1 == length, accumulate) {
                (true, true) => {}
                (true, false) => place.fill(0.0),
                (false, true) => add_into(place, grad_y.row(row + 1)),
                (false, false) => place.copy_from_slice(grad_y.row(row + 1)),
            }
        }
        Ok(())
    }

    fn trains_from_state(&self) -> bool {
        true
    }

    fn kernels(&self) -> Vec<&'static KernelSource> {
        vec![&SOURCE]
    }

    fn cuda_forward(&self, run: &CudaRun<'_>) -> Result<()> {
        let (x, y) = (run.value(self.x), run.value(self.y));
        let state = run.state(self.state);
        let params = PreviousParams {
            x: x.data,
            y: y.data,
            state: state.map_or(Ptr::default(), |state| state.data),
            x_stride: x.stride as u64,
            y_stride: y.stride as u64,
            rows: run.rows() as u64,
            length: run.length() as u64,
            cols: y.cols as u32,
            accumulate: 0,
        };
        let launch = Launch::for_each(y.rows * y.cols);
        run.launch(&SOURCE, "previous", launch, &params)?;
        if state.is_none() {
            return Ok(());
        }
        let launch = Launch::for_each(run.rows() * y.cols);
        run.launch(&SOURCE, "previous_state", launch, &params)
    }

    fn cuda_backward(&self, run: &CudaRun<'_>) -> Result<()> {
        let dy = run.grad(self.y)?;
        let (grad, accumulate) = run.grad_mut(self.x)?;
        let params = PreviousParams {
            x: grad.data,
            y: dy.data,
            state: Ptr::default(),
            x_stride: grad.stride as u64,
            y_stride: dy.stride as u64,
            rows: run.rows() as u64,
            length: run.length() as u64,
            cols: dy.cols as u32,
            accumulate: accumulate.into(),
        };
        let launch = Launch::for_each(dy.rows * dy.cols);
        run.launch(&SOURCE, "previous_gradient", launch, &params)
    }
}
