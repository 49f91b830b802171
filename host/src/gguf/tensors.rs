//! A llama's tensors under their names in the Hugging Face layout, in its order of rows, decoded as they are written.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::BTreeSet;

use half::{bf16, f16};
use safetensors::Dtype;
use safetensors::tensor::View;

use crate::checkpoint::files::FileError;
use crate::gguf::config::{FREQUENCIES, Llama, shown};
use crate::gguf::file::{Gguf, Tensor};

/// A tensor on its way.
pub struct Moved<'a> {
    /// Its name in the GGUF.
    source: String,
    tensor: &'a Tensor<'a>,
    /// Heads whose rows are put back into their order.
    heads: Option<usize>,
    dtype: Dtype,
    /// The first value that cannot be written, of all tensors.
    fault: &'a RefCell<Option<String>>,
}

/// Every tensor by its new name. What cannot be written is found while writing and left in `fault`.
///
/// # Errors
/// One that is missing, unknown or of another shape.
pub fn moved<'a>(
    gguf: &'a Gguf,
    llama: &Llama,
    dtype: Dtype,
    fault: &'a RefCell<Option<String>>,
) -> Result<Vec<(String, Moved<'a>)>, FileError> {
    let mut all = Vec::new();
    let mut left: BTreeSet<&str> = gguf.tensors.keys().copied().collect();
    left.remove(FREQUENCIES);
    for Expected {
        source,
        name,
        shape,
        heads,
    } in expected(llama)
    {
        let tensor = gguf.tensors.get(source.as_str()).ok_or_else(|| {
            gguf.bad(format!(
                "it has no tensor `{source}`, which a llama of its sizes needs"
            ))
        })?;
        if tensor.shape != shape {
            return Err(gguf.bad(format!(
                "tensor `{source}` is of shape {:?}; its keys say {shape:?}",
                tensor.shape
            )));
        }
        left.remove(source.as_str());
        all.push((
            name,
            Moved {
                source,
                tensor,
                heads,
                dtype,
                fault,
            },
        ));
    }
    match left.first() {
        None => Ok(all),
        Some(name) => Err(gguf.bad(format!(
            "tensor `{}` is not one of a llama of its sizes",
            shown(name)
        ))),
    }
}

/// A tensor that has to be there.
struct Expected {
    source: String,
    name: String,
    shape: Vec<usize>,
    heads: Option<usize>,
}

fn expected(llama: &Llama) -> Vec<Expected> {
    let Llama {
        vocab,
        d_model,
        hidden,
        heads,
        kv_heads,
        head_dim,
        ..
    } = *llama;
    let mut all = Vec::new();
    let mut put = |source: &str, name: &str, shape: &[usize], heads: Option<usize>| {
        let (source, name, shape) = (source.to_owned(), name.to_owned(), shape.to_vec());
        all.push(Expected {
            source,
            name,
            shape,
            heads,
        });
    };
    put(
        "token_embd.weight",
        "model.embed_tokens.weight",
        &[vocab, d_model],
        None,
    );
    put("output_norm.weight", "model.norm.weight", &[d_model], None);
    if !llama.tied {
        put("output.weight", "lm_head.weight", &[vocab, d_model], None);
    }
    let (q, kv) = (heads * head_dim, kv_heads * head_dim);
    let [attention, mlp] = llama.biases;
    let linear = [
        (
            "attn_q",
            "self_attn.q_proj",
            q,
            d_model,
            Some(heads),
            attention,
        ),
        (
            "attn_k",
            "self_attn.k_proj",
            kv,
            d_model,
            Some(kv_heads),
            attention,
        ),
        ("attn_v", "self_attn.v_proj", kv, d_model, None, attention),
        (
            "attn_output",
            "self_attn.o_proj",
            d_model,
            q,
            None,
            attention,
        ),
        ("ffn_gate", "mlp.gate_proj", hidden, d_model, None, mlp),
        ("ffn_up", "mlp.up_proj", hidden, d_model, None, mlp),
        ("ffn_down", "mlp.down_proj", d_model, hidden, None, mlp),
    ];
    for layer in 0..llama.layers {
        let (from, to) = (format!("blk.{layer}"), format!("model.layers.{layer}"));
        for (source, name, rows, columns, heads, bias) in linear {
            let (source, name) = (format!("{from}.{source}"), format!("{to}.{name}"));
            put(
                &format!("{source}.weight"),
                &format!("{name}.weight"),
                &[rows, columns],
                heads,
            );
            if bias {
                put(
                    &format!("{source}.bias"),
                    &format!("{name}.bias"),
                    &[rows],
                    heads,
                );
            }
        }
        for (source, name) in [
            ("attn_norm", "input_layernorm"),
            ("ffn_norm", "post_attention_layernorm"),
        ] {
            put(
                &format!("{from}.{source}.weight"),
                &format!("{to}.{name}.weight"),
                &[d_model],
                None,
            );
        }
    }
    all
}

impl Moved<'_> {
    /// Number of values.
    pub fn values(&self) -> usize {
        self.tensor.shape.iter().product()
    }

    /// ggml's name of how the values are stored.
    pub fn format(&self) -> &'static str {
        self.tensor.block.name
    }

    /// The row of the GGUF that is row `index` here. llama.cpp turns neighbouring values where transformers turns
    /// those half a head apart, and so its converter puts the rows of queries and keys in pairs.
    fn source_row(&self, index: usize) -> usize {
        let Some(heads) = self.heads else {
            return index;
        };
        let width = self.tensor.shape[0] / heads;
        let (head, row) = (index / width * width, index % width);
        head + row % (width / 2) * 2 + row / (width / 2)
    }

    fn note(&self, what: &str) {
        let sentence = || format!("tensor `{}` {what}", self.source);
        self.fault.borrow_mut().get_or_insert_with(sentence);
    }

    fn push(&self, bytes: &mut Vec<u8>, values: &[f32]) {
        match self.dtype {
            Dtype::F16 => {
                let halves = values.iter().map(|&value| f16::from_f32(value));
                bytes.extend(halves.flat_map(|value| {
                    if !value.is_finite() {
                        self.note("has a value that float16 cannot hold, or that is not finite");
                    }
                    value.to_le_bytes()
                }));
            }
            Dtype::BF16 => {
                let values = values.iter().map(|&value| bf16::from_f32(value));
                bytes.extend(values.flat_map(bf16::to_le_bytes));
            }
            _ => bytes.extend(values.iter().flat_map(|value| value.to_le_bytes())),
        }
    }
}

impl View for Moved<'_> {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.tensor.shape
    }

    fn data_len(&self) -> usize {
        self.values() * if self.dtype == Dtype::F32 { 4 } else { 2 }
    }

    fn data(&self) -> Cow<'_, [u8]> {
        // A vector is a column: its rows have one value, and its blocks, if any, hold several rows.
        let Tensor {
            shape,
            block,
            bytes,
        } = self.tensor;
        let columns = shape[1..].iter().product::<usize>();
        let mut written = Vec::with_capacity(self.data_len());
        let mut rows = vec![0.0; shape[0] * if shape.len() == 1 { columns } else { 0 }];
        block.decode(bytes, &mut rows);
        let mut row = vec![0.0; columns];
        let row_bytes = bytes.len() / shape[0];
        for index in 0..shape[0] {
            let source = self.source_row(index);
            match shape.len() {
                1 => row[0] = rows[source],
                _ => block.decode(&bytes[source * row_bytes..][..row_bytes], &mut row),
            }
            if row.iter().any(|value| !value.is_finite()) {
                self.note("has a value that is not finite");
            }
            self.push(&mut written, &row);
        }
        Cow::Owned(written)
    }
}
