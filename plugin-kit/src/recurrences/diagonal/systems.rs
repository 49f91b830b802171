//! Diagonal systems of one input and one output each, several states a channel, whose states never leave the operation:
//! `x = a x + u`, `y = Re sum c x`.

use longhaul_plugin_api::author::Result;
use longhaul_plugin_api::error::PluginError;

use super::systems_device::{self as device, Shares};
use super::systems_scan::{BLOCK, CHUNK, Given, Gradients, advance, retreat};
use super::{Carries, Ports, Real, Recurrence, Sequence, begin};
use crate::cuda::rows::ROWS;
use crate::engine::graph::Graph;
use crate::engine::operation::{CudaRun, KernelSource, Operation, Run};
use crate::engine::tensor::{Buffer, Extent, Saved, State, StateSpec, Tensor};
use crate::simd::add_into;
use crate::units::{cut, for_each_unit};

impl Graph {
    /// A complex diagonal system a channel: `x = a x + u` for each of the N states of a channel, from 0, and `y` the sum
    /// of the real parts of `c x`. u and y are `[B, T, H]`; a and c are constants `[2, N, H]`, real parts before
    /// imaginary ones. The state has 2 N H values.
    ///
    /// # Panics
    /// If sizes do not fit, or a or c is no constant.
    #[track_caller]
    pub fn diagonal_systems(&mut self, a: Tensor, c: Tensor, u: Tensor) -> Tensor {
        assert!(
            a.is_constant() && c.is_constant() && a.cols() == c.cols(),
            "transitions and weights of systems are constants of equal widths"
        );
        let whole = u.cols() > 0 && a.cols().is_multiple_of(2 * u.cols());
        assert!(whole, "{} columns for {} channels", a.cols(), u.cols());
        self.record(Systems { a, c, u })
    }
}

struct Systems {
    a: Tensor,
    c: Tensor,
    u: Tensor,
}

impl Recurrence for Systems {
    fn name(&self) -> &'static str {
        "diagonal_systems"
    }

    fn ports(&self) -> Ports {
        Ports {
            inputs: vec![self.a, self.c, self.u],
            params: Vec::new(),
            cols: self.u.cols(),
            carries: Carries::State {
                values: self.a.cols(),
                initial: 0.0,
            },
        }
    }

    fn naive<N: Real>(&self, given: &Sequence<N>, state: &mut [N]) -> Vec<N> {
        let channels = self.u.cols();
        let half = state.len() / 2;
        let mut y = Vec::with_capacity(given.length * channels);
        for t in 0..given.length {
            let (a, c, u) = (given.token(0, t), given.token(1, t), given.token(2, t));
            let mut token = vec![N::from(0.0); channels];
            for re in 0..half {
                let (im, channel) = (re + half, re % channels);
                let (was_re, was_im) = (state[re], state[im]);
                state[re] = a[re] * was_re - a[im] * was_im + u[channel];
                state[im] = a[re] * was_im + a[im] * was_re;
                token[channel] += c[re] * state[re] - c[im] * state[im];
            }
            y.extend(token);
        }
        y
    }

    fn fast(&self, graph: &mut Graph) -> Option<Tensor> {
        let &Self { a, c, u } = self;
        let (width, channels) = (a.cols(), u.cols());
        let chunks = |cols| Extent::Chunks { chunk: CHUNK, cols };
        let y = graph.tensor(channels);
        let scan = Scan {
            a,
            c,
            u,
            kept: graph.saved(chunks(width)),
            running: graph.saved_on_cpu(Extent::Rows(width)),
            again: graph.saved_on_cpu(Extent::Rows(2 * (CHUNK + 1) * BLOCK)),
            grad_u: graph.saved_on_cpu(Extent::Tokens(channels)),
            sums: graph.saved_on_cpu(Extent::Rows(2 * width)),
            shares: graph.wants_device().then(|| Shares::new(graph, width)),
            state: graph.state(StateSpec::Fixed {
                values: width,
                initial: 0.0,
            }),
            y,
        };
        graph.push(scan);
        Some(y)
    }
}

pub(super) struct Scan {
    pub a: Tensor,
    pub c: Tensor,
    pub u: Tensor,
    /// `[B, chunks, 2, N, H]`: the states that chunks begin with.
    pub kept: Saved,
    /// `[B, 2, N, H]`: the states on their way, or their gradients.
    running: Saved,
    /// States of a chunk, computed again.
    again: Saved,
    /// `[B, T, H]`.
    grad_u: Saved,
    /// `[B, 2, 2, N, H]`: each sequence's share of the gradients of a and c.
    sums: Saved,
    /// What only a device needs.
    shares: Option<Shares>,
    /// 2 N H values a row.
    pub state: State,
    pub y: Tensor,
}

impl Operation for Scan {
    fn name(&self) -> &'static str {
        "diagonal_systems"
    }

    fn forward(&self, run: &Run<'_>) -> Result<()> {
        let (a, c, u) = (run.value(self.a), run.value(self.c), run.value(self.u));
        let (length, width, channels) = (run.length(), self.a.cols(), self.u.cols());
        let (a, c, u) = (a.get().row(0), c.get().row(0), u.get());
        let (mut running, mut kept) = (run.saved_mut(self.running), run.saved_mut(self.kept));
        let mut state = run.state(self.state);
        begin(&mut running, state.as_deref(), width);
        let mut y = run.value_mut(self.y);
        let (tokens, all) = (length * channels, length.div_ceil(CHUNK) * width);
        let kept = match run.is_training() {
            true => &mut kept[..],
            false => &mut [],
        };
        let cuts = (
            cut(y.data_mut(), tokens),
            cut(&mut running, width),
            cut(kept, all),
        );
        for_each_unit(length * width * 4, cuts, |row, (y, running, kept)| {
            let u = u.from_row(row * length);
            advance(Given { a, c, u }, running, kept, y);
        });
        if let Some(state) = &mut state {
            for (running, state) in running.chunks_exact(width).zip(state.iter_mut()) {
                state.copy_from_slice(running);
            }
        }
        Ok(())
    }

    fn uses(&self) -> Option<Vec<Buffer>> {
        Some(vec![
            self.a.into(),
            self.c.into(),
            self.u.into(),
            self.kept.into(),
            self.running.into(),
            self.y.into(),
        ])
    }

    fn backward(&self, run: &Run<'_>) -> Result<()> {
        let (length, width, channels) = (run.length(), self.a.cols(), self.u.cols());
        let (mut grad_u, mut sums) = (run.saved_mut(self.grad_u), run.saved_mut(self.sums));
        {
            let (a, c, u) = (run.value(self.a), run.value(self.c), run.value(self.u));
            let (a, c, u) = (a.get().row(0), c.get().row(0), u.get());
            let (kept, dy) = (run.saved(self.kept), run.grad(self.y));
            let (kept, dy) = (&kept[..], dy.get());
            let (mut carried, mut again) = (run.saved_mut(self.running), run.saved_mut(self.again));
            carried.fill(0.0);
            sums.fill(0.0);
            let all = length.div_ceil(CHUNK) * width;
            let cuts = (
                cut(&mut grad_u, length * channels),
                cut(&mut carried, width),
                cut(&mut again, 2 * (CHUNK + 1) * BLOCK),
                cut(&mut sums, 2 * width),
            );
            for_each_unit(
                length * width * 8,
                cuts,
                |row, (du, carried, again, sums)| {
                    let u = u.from_row(row * length);
                    let (grad_a, grad_c) = sums.split_at_mut(width);
                    let grads = Gradients {
                        a: grad_a,
                        c: grad_c,
                        u: du,
                    };
                    let kept = &kept[row * all..][..all];
                    let dy = dy.from_row(row * length);
                    retreat(Given { a, c, u }, kept, dy, carried, again, grads);
                },
            );
        }
        for (part, tensor) in [self.a, self.c].into_iter().enumerate() {
            let mut place = run.grad_mut(tensor);
            if !place.accumulate() {
                place.row_mut(0).fill(0.0);
            }
            for sums in sums.chunks_exact(2 * width) {
                add_into(place.row_mut(0), &sums[part * width..][..width]);
            }
        }
        let mut place = run.grad_mut(self.u);
        let accumulate = place.accumulate();
        for (token, grad) in grad_u.chunks_exact(channels).enumerate() {
            if accumulate {
                add_into(place.row_mut(token), grad);
            } else {
                place.row_mut(token).copy_from_slice(grad);
            }
        }
        Ok(())
    }

    fn trains_from_state(&self) -> bool {
        true
    }

    fn kernels(&self) -> Vec<&'static KernelSource> {
        vec![&device::DIAGONAL_SYSTEMS, &ROWS]
    }

    fn cuda_forward(&self, run: &CudaRun<'_>) -> Result<()> {
        device::forward(self, run)
    }

    fn cuda_backward(&self, run: &CudaRun<'_>) -> Result<()> {
        let shares = self.shares.as_ref().ok_or_else(|| {
            PluginError::internal("the systems were recorded for the CPU and run on a device")
        })?;
        device::backward(self, shares, run)
    }
}
