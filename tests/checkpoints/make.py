"""Makes tiny checkpoints with what the transformers library computes from them in float64 on a CPU.

Usage: make.py OUT [NAME...]      needs: pip install torch transformers safetensors

OUT/NAME/ gets config.json, model.safetensors (float32) and expected.safetensors: tokens [2, T] (i64), logits
[2, T, V] (f32), loss [1] (f64, mean over predicting token t+1 from t) and grad.<parameter> (f32).
`longhaul checkpoint verify OUT/NAME` holds a plugin against it."""

import contextlib
import pathlib
import sys
import unittest.mock

import torch
import transformers as tf
from safetensors.torch import save_file

VOCAB, LENGTH = 40, 44
COMMON = dict(vocab_size=VOCAB, hidden_size=16, num_hidden_layers=2)
ATTENTION = dict(COMMON, num_attention_heads=4, num_key_value_heads=2, intermediate_size=24)
QWEN3_NEXT = dict(ATTENTION, head_dim=8, linear_num_key_heads=2, linear_num_value_heads=6, linear_key_head_dim=6, linear_value_head_dim=4, num_experts=0)
# Its norms would be of float32 else.
XLSTM = dict(COMMON, mode="train", norm_reduction_force_float32=False)
MODELS = {
    "llama": (tf.LlamaForCausalLM, tf.LlamaConfig, dict(ATTENTION, attention_bias=True, mlp_bias=True, rope_theta=500.0)),
    "llama-wide-heads": (tf.LlamaForCausalLM, tf.LlamaConfig, dict(ATTENTION, head_dim=6, tie_word_embeddings=True, pad_token_id=3)),
    "mistral": (tf.MistralForCausalLM, tf.MistralConfig, dict(ATTENTION, num_key_value_heads=1, sliding_window=9)),
    "mamba": (tf.MambaForCausalLM, tf.MambaConfig, dict(COMMON, state_size=5, use_bias=True, expand=3, conv_kernel=3)),
    "mamba-untied": (tf.MambaForCausalLM, tf.MambaConfig, dict(COMMON, state_size=16, use_conv_bias=False, tie_word_embeddings=False, hidden_size=24)),
    "mamba2": (tf.Mamba2ForCausalLM, tf.Mamba2Config, dict(COMMON, state_size=6, head_dim=8, num_heads=4, n_groups=2, chunk_size=8)),
    "mamba2-tied": (tf.Mamba2ForCausalLM, tf.Mamba2Config, dict(COMMON, state_size=16, head_dim=4, num_heads=12, expand=3, n_groups=4, chunk_size=16, use_bias=True, tie_word_embeddings=True)),
    "bamba": (tf.BambaForCausalLM, tf.BambaConfig, dict(ATTENTION, attn_layer_indices=[0], mamba_n_heads=4, mamba_d_head=8, mamba_d_state=6, mamba_n_groups=2, mamba_chunk_size=8, tie_word_embeddings=True)),
    "recurrent_gemma": (tf.RecurrentGemmaForCausalLM, tf.RecurrentGemmaConfig, dict(ATTENTION, num_key_value_heads=2, head_dim=4, lru_width=24, attention_window_size=7, block_types=["recurrent", "attention"])),
    "rwkv": (tf.RwkvForCausalLM, tf.RwkvConfig, dict(COMMON, attention_hidden_size=24, intermediate_size=40, context_length=64)),
    "rwkv-deep": (tf.RwkvForCausalLM, tf.RwkvConfig, dict(COMMON, num_hidden_layers=7, attention_hidden_size=16, tie_word_embeddings=True, layer_norm_epsilon=1e-3)),
    # Queries and keys have no gradient, by their form.
    "mistral-window-1": (tf.MistralForCausalLM, tf.MistralConfig, dict(ATTENTION, sliding_window=1)),
    "llama-linear": (tf.LlamaForCausalLM, tf.LlamaConfig, dict(ATTENTION, head_dim=16, rope_parameters=dict(rope_type="linear", rope_theta=500.0, factor=4.0))),
    "llama-yarn": (tf.LlamaForCausalLM, tf.LlamaConfig, dict(ATTENTION, head_dim=16, rope_parameters=dict(rope_type="yarn", rope_theta=500.0, factor=4.0, original_max_position_embeddings=16))),
    "llama-yarn-mscale": (tf.LlamaForCausalLM, tf.LlamaConfig, dict(ATTENTION, head_dim=16, rope_parameters=dict(rope_type="yarn", rope_theta=500.0, factor=3.0, original_max_position_embeddings=20, beta_fast=2.0, beta_slow=0.05, mscale=0.7, mscale_all_dim=1.2, truncate=False))),
    "llama-llama3": (tf.LlamaForCausalLM, tf.LlamaConfig, dict(ATTENTION, head_dim=16, rope_parameters=dict(rope_type="llama3", rope_theta=500.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=16))),
    "bamba-yarn": (tf.BambaForCausalLM, tf.BambaConfig, dict(ATTENTION, head_dim=32, attn_layer_indices=[1], mamba_n_heads=4, mamba_d_head=8, mamba_d_state=6, mamba_chunk_size=8, rope_parameters=dict(rope_type="yarn", rope_theta=500.0, factor=4.0, original_max_position_embeddings=16))),
    "llama-bf16": (tf.LlamaForCausalLM, tf.LlamaConfig, dict(ATTENTION)),
    "mamba-f16": (tf.MambaForCausalLM, tf.MambaConfig, dict(COMMON, state_size=5)),
    "qwen3_next": (tf.Qwen3NextForCausalLM, tf.Qwen3NextConfig, dict(QWEN3_NEXT, num_hidden_layers=3, layer_types=["linear_attention", "full_attention", "linear_attention"], rope_theta=500.0)),
    # Layers by the interval; experts that no layer has.
    "qwen3_next-bias": (tf.Qwen3NextForCausalLM, tf.Qwen3NextConfig, dict(QWEN3_NEXT, num_hidden_layers=4, num_experts=2, decoder_sparse_step=2, mlp_only_layers=[1, 3], attention_bias=True, tie_word_embeddings=True, rms_norm_eps=1e-4, linear_conv_kernel_dim=2, linear_value_head_dim=3, linear_num_value_heads=2, rope_parameters=dict(rope_type="default", rope_theta=100.0, partial_rotary_factor=0.5))),
    "jamba": (tf.JambaForCausalLM, tf.JambaConfig, dict(ATTENTION, num_hidden_layers=3, attn_layer_period=3, attn_layer_offset=1, mamba_d_state=5, mamba_d_conv=3, mamba_dt_rank=3, num_experts=1, rms_norm_eps=1e-3)),
    # Not `xlstm`: a folder of that name beside this file is taken for the package, and transformers asks for its parts.
    "xlstm-single": (tf.xLSTMForCausalLM, tf.xLSTMConfig, dict(XLSTM, num_heads=2, chunk_size=11)),
    "xlstm-fused": (tf.xLSTMForCausalLM, tf.xLSTMConfig, dict(XLSTM, weight_mode="fused", hidden_size=24, num_hidden_layers=3, num_heads=3, qk_dim_factor=1.0, v_dim_factor=2.0, chunk_size=4, gate_soft_cap=4.0, output_logit_soft_cap=7.0, ffn_proj_factor=1.1, ffn_round_up_to_multiple_of=8, norm_eps=1e-4, eps=1e-3)),
}

# Types in which values are stored, where not float32. The expected ones are of the rounded values.
STORED = {"llama-bf16": torch.bfloat16, "mamba-f16": torch.float16}

# Classes that compute parts in float32 whatever their weights are, so much of it that gradients of decays are wrong in
# the fourth digit. What casts to float32 leaves float64 alone here.
CASTING = {"qwen3_next", "qwen3_next-bias"}


def without_casts():
    patch, to, to_float = unittest.mock.patch.multiple, torch.Tensor.to, torch.Tensor.float
    stays = lambda x, *wanted: x.dtype == torch.float64 and torch.float32 in wanted
    return patch(torch.Tensor, float=lambda x: x if stays(x, torch.float32) else to_float(x),
                 to=lambda x, *args, **kwargs: x if stays(x, *args, *kwargs.values()) else to(x, *args, **kwargs))


def make(folder, name, seed):
    model_class, config_class, options = MODELS[name]
    torch.manual_seed(seed)
    if options.get("weight_mode") == "fused":
        # transformers' own start of fused gates fails; PyTorch's remains.
        model_class.__base__._init_weights = lambda self, module: None
    model = model_class(config_class(**options)).float()
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            # Away from the all-equal starts of norms, biases and mixes.
            parameter.add_(torch.randn_like(parameter) * 0.1)
            if parameter_name.endswith("igate_preact.bias"):
                # Input gates start all but closed, and what is read would never be divided by its sum.
                parameter.add_(10.0)
    model.to(STORED.get(name, torch.float32)).save_pretrained(folder)
    # Read back, since rotary frequencies are not to be rounded with the weights.
    model = model_class.from_pretrained(folder, dtype=torch.float32)
    # RWKV's weights are divided for inference in deeper layers; training mode leaves them as they are.
    model = model.double().train()
    tokens = torch.randint(0, VOCAB, (2, LENGTH))
    with without_casts() if name in CASTING else contextlib.nullcontext():
        logits = model(input_ids=tokens, use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(logits[:, :-1].reshape(-1, VOCAB), tokens[:, 1:].reshape(-1))
        loss.backward()
    expected = {"tokens": tokens, "logits": logits.detach().float().contiguous(), "loss": loss.detach().reshape(1)}
    for parameter_name, parameter in model.named_parameters():
        if parameter.grad is not None:
            expected["grad." + parameter_name] = parameter.grad.float().contiguous()
    save_file(expected, folder / "expected.safetensors")
    (folder / "generation_config.json").unlink(missing_ok=True)
    source = f"tests/checkpoints/make.py, seed {seed}; transformers {tf.__version__}, torch {torch.__version__}"
    (folder / "SOURCE.txt").write_text(source + "\n")


if __name__ == "__main__":
    out = pathlib.Path(sys.argv[1])
    for number, name in enumerate(MODELS):
        if len(sys.argv) == 2 or name in sys.argv[2:]:
            make(out / name, name, 100 + number)
            print(out / name)
