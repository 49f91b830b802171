//! Causal softmax attention, tile by tile (arXiv 2205.14135, algorithm 1, and 2307.08691 for the
//! backward pass): a tile of queries meets tiles of keys, with running maxima and sums. No `[T, T]`
//! matrix exists. Grouped-query heads, windows, linear position biases, and a bias of each key.

use crate::units::{cut, for_each_unit};
use longhaul_plugin_api::author::Result;

use crate::engine::graph::Graph;
use crate::engine::operation::{CudaRun, KernelSource, Operation, Rows, Run, ViewMut};
use crate::engine::tensor::{Buffer, Extent, Saved, State, StateSpec, Tensor};
use crate::ops::attention_cuda::{DeviceBuffers, adds_up_heads};
use crate::ops::attention_naive::Attending;
use crate::ops::attention_tile::{Given, KeyGradients, Keys, accumulate_gradients, attend};
use crate::simd::add_into;

/// What positions add to the logits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PositionBias {
    /// Nothing.
    None,
    /// `-m_h (i - j)` with `m_h = 2^(-8 h / H)`, h from 1 (ALiBi, arXiv 2108.12409, section 3).
    Alibi,
    /// The first half of the heads sees only the last 1, 2, 3, .. tokens; the others have no bias
    /// (Hard-ALiBi, arXiv 2402.01032, section 3).
    HardAlibi,
}

/// Sizes of an attention.
#[derive(Debug, Clone, Copy)]
pub struct AttentionSpec {
    /// H, query heads.
    pub heads: usize,
    /// Key and value heads; each serves `heads / kv_heads` query heads.
    pub kv_heads: usize,
    /// K, width of a head.
    pub head_dim: usize,
    /// Factor on the products, `1 / sqrt(K)` as a rule.
    pub scale: f32,
    /// Keys a query sees, itself included; `None` is all.
    pub window: Option<usize>,
    /// What positions add.
    pub bias: PositionBias,
}

impl AttentionSpec {
    /// A head's own window and slope.
    fn head(&self, head: usize) -> HeadSpec {
        let narrow = self.bias == PositionBias::HardAlibi && head < self.heads / 2;
        let window = if narrow { Some(head + 1) } else { None };
        let slope = match self.bias {
            PositionBias::Alibi => 2f32.powf(-8.0 * (head + 1) as f32 / self.heads as f32),
            _ => 0.0,
        };
        let both = [window, self.window];
        HeadSpec {
            window: both.into_iter().flatten().min().unwrap_or(usize::MAX),
            slope,
            scale: self.scale,
        }
    }
}

/// What one head needs to know.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HeadSpec {
    /// Keys a query sees, itself included.
    pub window: usize,
    /// Slope of the linear bias.
    pub slope: f32,
    /// Factor on the products.
    pub scale: f32,
}

impl Graph {
    /// Attention of q `[B, T, H K]` over k and v `[B, T, kv_heads K]`, heads side by side in the
    /// columns; the result is `[B, T, H K]`. Its state is the keys and values read so far, up to the
    /// window.
    ///
    /// # Panics
    /// If the widths do not fit the heads.
    #[track_caller]
    pub fn attention(&mut self, q: Tensor, k: Tensor, v: Tensor, spec: AttentionSpec) -> Tensor {
        self.record_attention([q, k, v], None, spec)
    }

    /// The same with a number added to the logits of each key, one for each query head: the sum of the first H
    /// columns of `key_bias` `[B, T, 2 H]` and the last, as [`running_sum`](Self::running_sum) gives them. What is
    /// added to all logits of a query alike changes nothing, so only differences of these numbers count, and with
    /// minus the running sum of logarithms of forget gates this is forgetting attention (arXiv 2503.02130, eq. 5).
    /// On a card its products are float32.
    ///
    /// # Panics
    /// If the widths do not fit the heads.
    #[track_caller]
    pub fn attention_with_key_bias(
        &mut self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        key_bias: Tensor,
        spec: AttentionSpec,
    ) -> Tensor {
        assert_eq!(key_bias.cols(), 2 * spec.heads, "two parts for each head");
        self.record_attention([q, k, v], Some(key_bias), spec)
    }

    #[track_caller]
    fn record_attention(
        &mut self,
        [q, k, v]: [Tensor; 3],
        key_bias: Option<Tensor>,
        spec: AttentionSpec,
    ) -> Tensor {
        let AttentionSpec {
            heads,
            kv_heads,
            head_dim,
            ..
        } = spec;
        assert!(
            kv_heads > 0 && heads.is_multiple_of(kv_heads),
            "{kv_heads} into {heads} heads"
        );
        assert_eq!(q.cols(), heads * head_dim, "width of q");
        assert_eq!(
            (k.cols(), v.cols()),
            (kv_heads * head_dim, kv_heads * head_dim),
            "k and v"
        );
        self.record(Attending {
            q,
            k,
            v,
            key_bias,
            spec,
        })
    }
}

/// Records the operation.
pub(super) fn record(graph: &mut Graph, inputs: Attending) -> Tensor {
    let Attending {
        q,
        k,
        v,
        key_bias,
        spec,
    } = inputs;
    let AttentionSpec {
        heads,
        kv_heads,
        head_dim,
        ..
    } = spec;
    let y = graph.tensor(heads * head_dim);
    let biases = key_bias.map_or(0, |bias| bias.cols());
    let sums = key_bias.map_or(0, |_| heads);
    let device = graph
        .wants_device()
        .then(|| DeviceBuffers::new(graph, spec, key_bias));
    // On a device they hold shares of gradients that are added up over heads, if any are.
    let shares = |graph: &mut Graph, extent| match adds_up_heads(k, v, spec) {
        true => graph.saved(extent),
        false => graph.saved_on_cpu(extent),
    };
    let operation = Attention {
        q,
        k,
        v,
        key_bias,
        spec,
        by_head: shares(graph, Extent::Tokens(heads * head_dim)),
        log_sums: graph.saved(Extent::Tokens(heads)),
        grad_q: shares(graph, Extent::Tokens(heads * head_dim)),
        grad_k: graph.saved_on_cpu(Extent::Tokens(kv_heads * head_dim)),
        grad_v: graph.saved_on_cpu(Extent::Tokens(kv_heads * head_dim)),
        grad_bias: graph.saved_on_cpu(Extent::Tokens(sums)),
        state: graph.state(StateSpec::Cache {
            per_token: 2 * kv_heads * head_dim + biases,
            window: spec.window,
        }),
        device,
        y,
    };
    graph.push(operation);
    y
}

/// The operation; its form for a device is in [`super::attention_cuda`].
pub(super) struct Attention {
    pub(super) q: Tensor,
    pub(super) k: Tensor,
    pub(super) v: Tensor,
    /// `[B, T, 2 H]`: what is added to the logits of each key, in two parts.
    pub(super) key_bias: Option<Tensor>,
    pub(super) spec: AttentionSpec,
    /// `[B, H, T, K]`: the result, and in the backward pass its gradient, head by head; on a device
    /// `[B, T, H K]`, each query head's share of the gradient of v.
    pub(super) by_head: Saved,
    /// `[B, H, T]`: logarithm of each query's sum of exponentials.
    pub(super) log_sums: Saved,
    /// `[B, H, T, K]`; on a device `[B, T, H K]`, each query head's share of the gradient of k.
    pub(super) grad_q: Saved,
    /// `[B, kv_heads, T, K]`.
    grad_k: Saved,
    /// `[B, kv_heads, T, K]`.
    grad_v: Saved,
    /// `[B, H, T]`: of the biases of keys, where there are any.
    grad_bias: Saved,
    /// A row's tokens in order, each its keys, then its values, then its biases.
    pub(super) state: State,
    pub(super) device: Option<DeviceBuffers>,
    pub(super) y: Tensor,
}

/// `cols` columns from `column` on of the rows from `first` on.
pub(super) fn part(rows: Rows<'_>, first: usize, column: usize, cols: usize) -> Rows<'_> {
    let rows = rows.from_row(first);
    Rows {
        data: &rows.data[column.min(rows.data.len())..],
        cols,
        stride: rows.stride,
    }
}

impl Attention {
    /// Columns of a head as rows of their own.
    fn head<'a>(&self, rows: Rows<'a>, first: usize, head: usize) -> Rows<'a> {
        part(rows, first, head * self.spec.head_dim, self.spec.head_dim)
    }

    /// Both parts of a head's biases of keys.
    fn bias<'a>(&self, rows: Rows<'a>, first: usize, head: usize) -> [Rows<'a>; 2] {
        [head, self.spec.heads + head].map(|column| part(rows, first, column, 1))
    }

    /// Values of a token in the state.
    pub(super) fn per_token(&self) -> usize {
        let keys_and_values = 2 * self.spec.kv_heads * self.spec.head_dim;
        keys_and_values + self.key_bias.map_or(0, |bias| bias.cols())
    }
}

/// Copies `[B, heads, T, width]` into rows `[B, T, heads width]`.
pub(super) fn scatter(by_head: &[f32], length: usize, width: usize, mut rows: ViewMut<'_>) {
    let heads = rows.cols() / width;
    let accumulate = rows.accumulate();
    for (index, values) in by_head.chunks_exact(width).enumerate() {
        let (t, head, row) = (
            index % length,
            index / length % heads,
            index / length / heads,
        );
        let place = &mut rows.row_mut(row * length + t)[head * width..][..width];
        if accumulate {
            add_into(place, values);
        } else {
            place.copy_from_slice(values);
        }
    }
}

impl Operation for Attention {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn forward(&self, run: &Run<'_>) -> Result<()> {
        let (length, spec) = (run.length(), self.spec);
        let AttentionSpec {
            heads,
            kv_heads,
            head_dim,
            ..
        } = spec;
        let (q, k, v) = (run.value(self.q), run.value(self.k), run.value(self.v));
        let (q, k, v) = (q.get(), k.get(), v.get());
        let mut by_head = run.saved_mut(self.by_head);
        let mut log_sums = run.saved_mut(self.log_sums);
        let mut state = run.state(self.state);
        let bias = self.key_bias.map(|bias| run.value(bias));
        let bias = bias.as_ref().map(|bias| bias.get());
        let per_token = self.per_token();
        if let Some(state) = &mut state {
            for (row, cache) in state.iter_mut().enumerate() {
                for t in row * length..(row + 1) * length {
                    cache.extend_from_slice(k.row(t));
                    cache.extend_from_slice(v.row(t));
                    cache.extend_from_slice(bias.map_or(&[], |bias| bias.row(t)));
                }
            }
        }
        let caches = state.as_deref().map(Vec::as_slice);
        let past = state.as_deref().map_or(0, |rows| rows[0].len() / per_token);
        let cost = length * head_dim * past.max(length);
        let cuts = (
            cut(&mut by_head, length * head_dim),
            cut(&mut log_sums, length),
        );
        for_each_unit(cost, cuts, |unit, (out, sums)| {
            let (row, head) = (unit / heads, unit % heads);
            let kv_head = head / (heads / kv_heads);
            let q = self.head(q, row * length, head);
            let (keys, first) = match caches {
                None => {
                    let keys = Keys {
                        k: self.head(k, row * length, kv_head),
                        v: self.head(v, row * length, kv_head),
                        bias: bias.map(|bias| self.bias(bias, row * length, head)),
                    };
                    (keys, 0)
                }
                Some(caches) => {
                    let cache = caches[row].as_slice();
                    let all = Rows {
                        data: cache,
                        cols: per_token,
                        stride: per_token,
                    };
                    let before = cache.len() / per_token - length;
                    let biases = part(all, 0, 2 * kv_heads * head_dim, 2 * heads);
                    let keys = Keys {
                        k: self.head(all, 0, kv_head),
                        v: self.head(all, 0, kv_heads + kv_head),
                        bias: bias.map(|_| self.bias(biases, 0, head)),
                    };
                    (keys, before)
                }
            };
            attend(spec.head(head), q, keys, first, out, sums);
        });
        scatter(&by_head, length, head_dim, run.value_mut(self.y));
        if let (Some(state), Some(window)) = (&mut state, spec.window) {
            for cache in state.iter_mut() {
                let excess = cache.len().saturating_sub(window * per_token);
                cache.drain(..excess);
            }
        }
        Ok(())
    }

    fn uses(&self) -> Option<Vec<Buffer>> {
        let tensors = [self.q, self.k, self.v, self.y].into_iter();
        let tensors = tensors.chain(self.key_bias).map(Buffer::from);
        let saved = [self.by_head, self.log_sums].map(Buffer::from);
        Some(tensors.chain(saved).collect())
    }

    fn backward(&self, run: &Run<'_>) -> Result<()> {
        let (length, spec) = (run.length(), self.spec);
        let AttentionSpec {
            heads,
            kv_heads,
            head_dim,
            ..
        } = spec;
        let group = heads / kv_heads;
        let (q, k, v) = (run.value(self.q), run.value(self.k), run.value(self.v));
        let (q, k, v) = (q.get(), k.get(), v.get());
        let (y, grad_y) = (run.value(self.y), run.grad(self.y));
        let (y, grad_y) = (y.get(), grad_y.get());
        let log_sums = run.saved(self.log_sums);
        let log_sums: &[f32] = &log_sums;
        let mut grad_q = run.saved_mut(self.grad_q);
        let mut grad_k = run.saved_mut(self.grad_k);
        let mut grad_v = run.saved_mut(self.grad_v);
        let mut grad_bias = run.saved_mut(self.grad_bias);
        grad_bias.fill(0.0);
        let bias = self.key_bias.map(|bias| run.value(bias));
        let bias = bias.as_ref().map(|bias| bias.get());
        let tokens = length * head_dim;
        let cuts = (
            cut(&mut grad_q, group * tokens),
            cut(&mut grad_k, tokens),
            cut(&mut grad_v, tokens),
            cut(&mut grad_bias, group * length),
        );
        for_each_unit(
            tokens * length,
            cuts,
            |unit, (grad_q, grad_k, grad_v, grad_bias)| {
                let (row, kv_head) = (unit / kv_heads, unit % kv_heads);
                grad_k.fill(0.0);
                grad_v.fill(0.0);
                let mut biases = grad_bias.chunks_mut(length);
                for (member, grad_q) in grad_q.chunks_exact_mut(length * head_dim).enumerate() {
                    let head = kv_head * group + member;
                    let sums = &log_sums[(row * heads + head) * length..][..length];
                    let given = Given {
                        q: self.head(q, row * length, head),
                        keys: Keys {
                            k: self.head(k, row * length, kv_head),
                            v: self.head(v, row * length, kv_head),
                            bias: bias.map(|bias| self.bias(bias, row * length, head)),
                        },
                        y: self.head(y, row * length, head),
                        grad_y: self.head(grad_y, row * length, head),
                        log_sums: sums,
                    };
                    let grads = KeyGradients {
                        k: &mut *grad_k,
                        v: &mut *grad_v,
                        bias: biases.next().unwrap_or_default(),
                    };
                    accumulate_gradients(spec.head(head), given, grad_q, grads);
                }
            },
        );
        scatter(&grad_q, length, head_dim, run.grad_mut(self.q));
        scatter(&grad_k, length, head_dim, run.grad_mut(self.k));
        scatter(&grad_v, length, head_dim, run.grad_mut(self.v));
        if let Some(bias) = self.key_bias {
            for start in [0, heads] {
                let part = bias.columns(start, heads);
                scatter(&grad_bias, length, 1, run.grad_mut(part));
            }
        }
        Ok(())
    }

    fn kernels(&self) -> Vec<&'static KernelSource> {
        self.sources()
    }

    fn check_device(&self) -> Result<()> {
        self.source().map(drop)
    }

    fn cuda_forward(&self, run: &CudaRun<'_>) -> Result<()> {
        self.forward_on(run)
    }

    fn cuda_backward(&self, run: &CudaRun<'_>) -> Result<()> {
        self.backward_on(run)
    }
}
