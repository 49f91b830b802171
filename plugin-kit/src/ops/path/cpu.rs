//! The operation of PaTH attention, on a CPU: rows of the batch and key heads in parallel.

use std::cell::RefCell;

use longhaul_plugin_api::author::Result;

use super::PathAttention;
use super::attend::{Kept, Scratch, Unit, attend};
use super::block::BLOCK;
use super::device::{self, OnDevice};
use super::gradients::{Grads, differentiate};
use crate::engine::graph::Graph;
use crate::engine::operation::{CudaRun, KernelSource, Operation, Rows, Run, View};
use crate::engine::tensor::{Buffer, Extent, Saved, State, StateSpec, Tensor};
use crate::ops::attention::{part, scatter};
use crate::units::{cut, for_each_unit};

/// Tokens of a feed from which on a copy of all keys by head is small beside what is done with them.
const MANY: usize = 16;

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Records the operation.
pub(super) fn record(graph: &mut Graph, what: &PathAttention) -> Tensor {
    let PathAttention {
        heads,
        kv_heads,
        head_dim,
        ..
    } = *what;
    let (queries, keys) = (heads * head_dim, kv_heads * head_dim);
    let device = graph.wants_device().then(|| OnDevice::new(graph, what));
    let mut saved = |cols| graph.saved_on_cpu(Extent::Tokens(cols));
    let biases = what.key_bias.map_or(0, |bias| bias.cols());
    let operation = Path {
        by_head: saved(queries),
        log_sums: saved(heads),
        turned: saved(keys),
        grad_q: saved(queries),
        grad_k: saved(keys),
        grad_v: saved(keys),
        grad_w: saved(keys),
        grad_beta: saved(kv_heads),
        grad_bias: saved(if biases > 0 { heads } else { 0 }),
        products: graph.saved_on_cpu(Extent::Chunks {
            chunk: BLOCK,
            cols: keys * head_dim,
        }),
        keys: graph.state(StateSpec::Cache {
            per_token: keys,
            window: None,
        }),
        values: graph.state(StateSpec::Cache {
            per_token: keys + biases,
            window: None,
        }),
        y: graph.tensor(queries),
        device,
        what: *what,
    };
    let y = operation.y;
    graph.push(operation);
    y
}

pub(super) struct Path {
    pub(super) what: PathAttention,
    /// `[B, H, T, K]`: the result.
    by_head: Saved,
    /// `[B, H, T]`: logarithm of each query's sum of exponentials.
    log_sums: Saved,
    /// `[B, kv_heads, T, K]`: keys turned to the end of their block of tokens.
    turned: Saved,
    /// `[B, kv_heads, blocks, K, K]`: what each block turns keys by.
    products: Saved,
    /// Gradients of each input by head.
    grad_q: Saved,
    grad_k: Saved,
    grad_v: Saved,
    grad_w: Saved,
    grad_beta: Saved,
    grad_bias: Saved,
    /// A row's keys in order, turned by all tokens so far.
    pub(super) keys: State,
    /// A row's values in order, each token's biases after them.
    pub(super) values: State,
    pub(super) y: Tensor,
    pub(super) device: Option<OnDevice>,
}

/// The inputs of a run, each from the first token on.
struct Sources<'a> {
    q: Rows<'a>,
    k: Rows<'a>,
    v: Rows<'a>,
    w: Rows<'a>,
    beta: Rows<'a>,
    bias: Option<Rows<'a>>,
}

impl<'a> Sources<'a> {
    fn new(views: &'a [View<'a>]) -> Self {
        let of = |input: usize| views[input].get();
        Self {
            q: of(0),
            k: of(1),
            v: of(2),
            w: of(3),
            beta: of(4),
            bias: views.get(5).map(View::get),
        }
    }
}

impl Path {
    /// What a key head and its queries read: `token` is the row's first of this run. Values and biases are the row's
    /// from the first token that is in its state.
    fn unit<'a>(
        &self,
        sources: &Sources<'a>,
        kv: usize,
        token: usize,
        values: [Rows<'a>; 2],
    ) -> Unit<'a> {
        let PathAttention {
            heads,
            kv_heads,
            head_dim,
            ..
        } = self.what;
        let group = heads / kv_heads;
        let [values, biases] = values;
        let bias = |half: usize| part(biases, 0, half * heads + kv * group, group);
        Unit {
            q: part(sources.q, token, kv * group * head_dim, head_dim),
            w: part(sources.w, token, kv * head_dim, head_dim),
            beta: part(sources.beta, token, kv, 1),
            v: part(values, 0, kv * head_dim, head_dim),
            bias: self.what.key_bias.map(|_| [bias(0), bias(1)]),
            group,
            width: head_dim,
            scale: self.what.scale,
        }
    }

    /// The same where the values are those of this run.
    fn unit_of_run<'a>(&self, sources: &Sources<'a>, kv: usize, token: usize) -> Unit<'a> {
        let biases = sources.bias.unwrap_or(sources.v);
        let values = [sources.v, biases].map(|rows| rows.from_row(token));
        self.unit(sources, kv, token, values)
    }

    fn views<'a>(&self, run: &Run<'a>) -> Vec<View<'a>> {
        let inputs = self.what.inputs().into_iter();
        inputs.map(|input| run.value(input)).collect()
    }
}

/// A head's keys of all tokens beside each other, `[tokens, K]`.
fn gather(rows: Rows<'_>, place: &mut [f32]) {
    for (token, place) in place.chunks_exact_mut(rows.cols).enumerate() {
        place.copy_from_slice(rows.row(token));
    }
}

impl Path {
    /// Feeds a row whose new keys, values and biases are in its state.
    fn feed(
        &self,
        sources: &Sources<'_>,
        (row, length): (usize, usize),
        keys: &mut [f32],
        values: &[f32],
        [out, sums]: [&mut [f32]; 2],
    ) {
        let (width, kv_heads) = (self.what.head_dim, self.what.kv_heads);
        let cols = kv_heads * width;
        let tokens = keys.len() / cols;
        let stride = values.len() / tokens;
        let rows = |start: usize| Rows {
            data: &values[start..],
            cols: stride - start,
            stride,
        };
        let biases = if stride > cols { rows(cols) } else { rows(0) };
        let unit = |kv| self.unit(sources, kv, row * length, [rows(0), biases]);
        let (out_of, sums_of) = (out.len() / kv_heads, sums.len() / kv_heads);
        if length < MANY {
            let places = out
                .chunks_exact_mut(out_of)
                .zip(sums.chunks_exact_mut(sums_of));
            for (kv, (out, sums)) in places.enumerate() {
                SCRATCH.with_borrow_mut(|scratch| {
                    attend(
                        &unit(kv),
                        (&mut keys[kv * width..], cols),
                        length,
                        out,
                        sums,
                        None,
                        scratch,
                    );
                });
            }
            return;
        }
        let mut apart = vec![0.0; keys.len()];
        let all = Rows {
            data: keys,
            cols,
            stride: cols,
        };
        let cuts = (
            cut(&mut apart, tokens * width),
            cut(out, out_of),
            cut(sums, sums_of),
        );
        for_each_unit(length * tokens * width, cuts, |kv, (apart, out, sums)| {
            gather(part(all, 0, kv * width, width), apart);
            SCRATCH.with_borrow_mut(|scratch| {
                attend(&unit(kv), (apart, width), length, out, sums, None, scratch);
            });
        });
        for (kv, apart) in apart.chunks_exact(tokens * width).enumerate() {
            for (key, turned) in keys.chunks_exact_mut(cols).zip(apart.chunks_exact(width)) {
                key[kv * width..][..width].copy_from_slice(turned);
            }
        }
    }
}

impl Operation for Path {
    fn name(&self) -> &'static str {
        "path_attention"
    }

    fn forward(&self, run: &Run<'_>) -> Result<()> {
        let (length, width, kv_heads) = (run.length(), self.what.head_dim, self.what.kv_heads);
        let group = self.what.heads / kv_heads;
        let views = self.views(run);
        let sources = Sources::new(&views);
        let mut by_head = run.saved_mut(self.by_head);
        let mut log_sums = run.saved_mut(self.log_sums);
        let each = group * length * width;
        match (run.state(self.keys), run.state(self.values)) {
            (Some(mut keys), Some(mut values)) => {
                let places = by_head
                    .chunks_mut(kv_heads * each)
                    .zip(log_sums.chunks_mut(kv_heads * group * length));
                let states = keys.iter_mut().zip(values.iter_mut());
                for (row, ((keys, values), (out, sums))) in states.zip(places).enumerate() {
                    for t in row * length..(row + 1) * length {
                        keys.extend_from_slice(sources.k.row(t));
                        values.extend_from_slice(sources.v.row(t));
                        values.extend_from_slice(sources.bias.map_or(&[], |bias| bias.row(t)));
                    }
                    self.feed(&sources, (row, length), keys, values, [out, sums]);
                }
            }
            _ => {
                let mut turned = run.saved_mut(self.turned);
                let mut products = run.saved_mut(self.products);
                let mut room = vec![0.0; turned.len()];
                let cuts = (
                    cut(&mut by_head, each),
                    cut(&mut log_sums, group * length),
                    cut(&mut room, length * width),
                    cut(&mut turned, length * width),
                    cut(&mut products, length.div_ceil(BLOCK) * width * width),
                );
                for_each_unit(
                    each * length,
                    cuts,
                    |unit, (out, sums, keys, turned, products)| {
                        let (row, kv) = (unit / kv_heads, unit % kv_heads);
                        gather(part(sources.k, row * length, kv * width, width), keys);
                        let unit = self.unit_of_run(&sources, kv, row * length);
                        let kept = Some(Kept { turned, products });
                        SCRATCH.with_borrow_mut(|scratch| {
                            attend(&unit, (keys, width), length, out, sums, kept, scratch);
                        });
                    },
                );
            }
        }
        scatter(&by_head, length, width, run.value_mut(self.y));
        Ok(())
    }

    fn uses(&self) -> Option<Vec<Buffer>> {
        let tensors = self.what.inputs().into_iter().chain([self.y]);
        let saved = [self.by_head, self.log_sums, self.turned, self.products];
        let saved = saved.into_iter().map(Buffer::from);
        Some(tensors.map(Buffer::from).chain(saved).collect())
    }

    fn backward(&self, run: &Run<'_>) -> Result<()> {
        let (length, width, kv_heads) = (run.length(), self.what.head_dim, self.what.kv_heads);
        let (heads, group) = (self.what.heads, self.what.heads / kv_heads);
        let views = self.views(run);
        let sources = Sources::new(&views);
        let (y, grad_y) = (run.value(self.y), run.grad(self.y));
        let (y, grad_y) = (y.get(), grad_y.get());
        let (log_sums, turned, products) = (
            run.saved(self.log_sums),
            run.saved(self.turned),
            run.saved(self.products),
        );
        let (log_sums, turned, products): (&[f32], &[f32], &[f32]) =
            (&log_sums, &turned, &products);
        let mut grad_q = run.saved_mut(self.grad_q);
        let mut grad_k = run.saved_mut(self.grad_k);
        let mut grad_v = run.saved_mut(self.grad_v);
        let mut grad_w = run.saved_mut(self.grad_w);
        let mut grad_beta = run.saved_mut(self.grad_beta);
        let mut grad_bias = run.saved_mut(self.grad_bias);
        let (tokens, blocks) = (length * width, length.div_ceil(BLOCK) * width * width);
        let cuts = (
            cut(&mut grad_q, group * tokens),
            cut(&mut grad_k, tokens),
            cut(&mut grad_v, tokens),
            cut(&mut grad_w, tokens),
            cut(&mut grad_beta, length),
            cut(&mut grad_bias, group * length),
        );
        for_each_unit(
            group * tokens * length,
            cuts,
            |index, (q, k, v, w, beta, bias)| {
                let (row, kv) = (index / kv_heads, index % kv_heads);
                let first = kv * group * width;
                let unit = self.unit_of_run(&sources, kv, row * length);
                let kept = [
                    &turned[index * tokens..][..tokens],
                    &products[index * blocks..][..blocks],
                ];
                let result = [y, grad_y].map(|rows| part(rows, row * length, first, width));
                let sums = &log_sums[index * group * length..][..group * length];
                let k_rows = part(sources.k, row * length, kv * width, width);
                let grads = Grads {
                    q,
                    k,
                    v,
                    w,
                    beta,
                    bias,
                };
                SCRATCH.with_borrow_mut(|scratch| {
                    differentiate(&unit, k_rows, kept, result, sums, grads, scratch);
                });
            },
        );
        let inputs = [self.what.q, self.what.k, self.what.v, self.what.w];
        for (input, grads) in inputs.into_iter().zip([&grad_q, &grad_k, &grad_v, &grad_w]) {
            scatter(grads, length, width, run.grad_mut(input));
        }
        scatter(&grad_beta, length, 1, run.grad_mut(self.what.beta));
        if let Some(bias) = self.what.key_bias {
            for start in [0, heads] {
                scatter(
                    &grad_bias,
                    length,
                    1,
                    run.grad_mut(bias.columns(start, heads)),
                );
            }
        }
        Ok(())
    }

    fn kernels(&self) -> Vec<&'static KernelSource> {
        device::kernels()
    }

    fn check_device(&self) -> Result<()> {
        device::check(self.what.head_dim)
    }

    fn cuda_forward(&self, run: &CudaRun<'_>) -> Result<()> {
        self.forward_on(run)
    }

    fn cuda_backward(&self, run: &CudaRun<'_>) -> Result<()> {
        self.backward_on(run)
    }
}
