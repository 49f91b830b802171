"""What other software's attention layers give, for plugins/transformer/tests/foreign.rs.

fla's layers of forgetting and PaTH attention, with their own naive functions where their kernels need a card and a
short convolution, a norm and a length by their formulas; transformers' layers of
differential attention (DiffLlama, its norm with a weight, as the authors' code has it) and of gated attention
(Qwen3-Next, without its norms, whose weights all heads share). Parameters are drawn under our names, put together to
theirs, and the gradients are those of ours.

    pip install torch transformers einops && pip install --no-deps flash-linear-attention==0.6.0 fla-core==0.6.0
    python tests/foreign/attention.py      # writes plugins/transformer/tests/foreign/*.json
"""

import json
import pathlib

import torch
from fla.layers import forgetting_attn, path_attn
from fla.ops.forgetting_attn.naive import naive_forgetting_attn
from fla.ops.path_attn.naive import naive_path_attn as path_attn_naive
from recurrences import drawn, numbers
from torch.func import functional_call
from transformers.models.diffllama import modeling_diffllama
from transformers.models.qwen3_next import modeling_qwen3_next

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "plugins" / "transformer" / "tests" / "foreign"
BATCH, LENGTH = 2, 9
torch.set_default_dtype(torch.float64)
torch.Tensor.float = torch.Tensor.double
torch.float = torch.float64  # what a naive function rounds to
forgetting_attn.parallel_forgetting_attn = lambda q, k, v, g, **_: naive_forgetting_attn(q, k, v, g)
path_attn.l2_norm = lambda w, **_: w / torch.sqrt((w * w).sum(-1, keepdim=True) + 1e-6)
path_attn.RMSNorm.forward = lambda self, x: torch.nn.functional.rms_norm(x, x.shape[-1:], self.weight, self.eps)


def convolution(self, x, **_):
    x = torch.nn.functional.pad(x.mT, (self.weight.shape[-1] - 1, 0))
    return torch.nn.functional.silu(torch.nn.functional.conv1d(x, self.weight, groups=x.shape[1]).mT), None


def naive_path(q, k, v, w, beta, g, **_):
    """Where there is no forget gate, one that forgets nothing."""
    g = torch.zeros(q.shape[:3]) if g is None else g
    return path_attn_naive(q, k, v, w, beta, g, q.shape[-1] ** -0.5, chunk_size=4), None


path_attn.ShortConvolution.forward, path_attn.parallel_path_attn = convolution, naive_path


def qkv(p, heads, kv_heads, head_dim):
    return p["qkv.weight"].split([heads * head_dim, kv_heads * head_dim, kv_heads * head_dim])


def rotary(dims):
    """cos and sin as transformers' layers are given them, base 10000."""
    angles = torch.arange(LENGTH)[:, None] * 10_000.0 ** (-torch.arange(0, dims, 2) / dims)
    angles = torch.cat([angles, angles], -1)[None]
    return angles.cos(), angles.sin()


def causal():
    return torch.full((LENGTH, LENGTH), -torch.inf).triu(1)[None, None]


def fox(p, x, layer, gate):
    d = x.shape[-1]
    module = forgetting_attn.ForgettingAttention(d, num_heads=4, num_kv_heads=2, use_output_gate=gate)
    q, k, v = qkv(p, 4, 2, d // 4)
    theirs = {"q_proj.weight": q, "k_proj.weight": k, "v_proj.weight": v, "o_proj.weight": p["out_proj.weight"]}
    theirs |= {"f_proj.weight": p["forget.weight"], "f_proj.bias": p["forget.bias"]}
    if gate:
        theirs["g_proj.weight"] = p["gate.weight"]
    return functional_call(module, theirs, (x,))[0]


def path(p, x, layer, kv_heads, forget, rank, conv, norm):
    d = x.shape[-1]
    module = path_attn.PaTHAttention(d, 4, kv_heads, forget, norm, use_low_rank_w=rank, use_w_shortconv=conv)
    q, k, v = qkv(p, 4, kv_heads, d // 4)
    theirs = {"q_proj.weight": q, "k_proj.weight": k, "v_proj.weight": v, "o_proj.weight": p["out_proj.weight"]}
    names = {"w_down.weight": "w_proj.0.weight", "w_up.weight": "w_proj.1.weight", "w_proj.weight": "w_proj.weight"}
    names |= {"beta.weight": "bt_proj.weight", "beta.bias": "bt_proj.bias", "w_conv1d.weight": "w_conv1d.weight"}
    names |= {"forget.weight": "g_proj.weight", "forget.bias": "g_proj.bias"}
    names |= {"q_norm.weight": "maybe_q_norm.weight", "k_norm.weight": "maybe_k_norm.weight"}
    theirs |= {names[name]: value for name, value in p.items() if name in names}
    if conv:
        theirs["w_conv1d.weight"] = p["w_conv1d.weight"][:, None]
    return functional_call(module, theirs, (x,))[0]


def config(of, **more):
    sizes = {"hidden_size": 8, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 4, "attention_bias": False}
    made = of(**sizes, **more)
    made._attn_implementation = "eager"
    return made


def differential(p, x, layer):
    module = modeling_diffllama.DiffLlamaAttention(config(modeling_diffllama.DiffLlamaConfig), layer)
    module.groupnorm = torch.nn.RMSNorm(8, eps=1e-5)
    q, k, v = qkv(p, 4, 2, 4)
    theirs = {"q_proj.weight": q, "k_proj.weight": k, "v_proj.weight": v, "o_proj.weight": p["out_proj.weight"]}
    theirs |= {name: p[name].flatten() for name in p if name.startswith("lambda")}
    theirs["groupnorm.weight"] = p["subln.weight"]
    return functional_call(module, theirs, (x, rotary(4), causal()))[0]


def gated(p, x, layer):
    module = modeling_qwen3_next.Qwen3NextAttention(config(modeling_qwen3_next.Qwen3NextConfig), layer)
    module.q_norm = module.k_norm = torch.nn.Identity()
    q, k, v = qkv(p, 4, 2, 4)
    # A head's queries, then its gates.
    q = torch.cat([q.view(4, 4, 8), p["gate.weight"].view(4, 4, 8)], 1).reshape(32, 8)
    theirs = {"q_proj.weight": q, "k_proj.weight": k, "v_proj.weight": v, "o_proj.weight": p["out_proj.weight"]}
    return functional_call(module, theirs, (x, rotary(2), causal()))[0]


FOX = {"qkv.weight": (16, 8), "forget.weight": (4, 8), "forget.bias": (4,), "out_proj.weight": (8, 8)}
WIDE = {"qkv.weight": (32, 8), "out_proj.weight": (8, 16)}
LAMBDA = {"lambda_q1": (4,), "lambda_k1": (4,), "lambda_q2": (4,), "lambda_k2": (4,), "subln.weight": (8,)}
HEADS = {"heads": "4", "kv_heads": "2"}
PATH = {"qkv.weight": (24, 8), "w_down.weight": (32, 8), "w_up.weight": (8, 32), "w_conv1d.weight": (8, 3)}
PATH |= {"beta.weight": (4, 8), "beta.bias": (4,), "out_proj.weight": (8, 8)}
PATH_FOX = {"qkv.weight": (16, 8), "q_norm.weight": (2,), "k_norm.weight": (2,), "w_proj.weight": (4, 8)}
PATH_FOX |= {"beta.weight": (2, 8), "beta.bias": (2,), "forget.weight": (4, 8), "forget.bias": (4,)}
PATH_FOX |= {"out_proj.weight": (8, 8)}
PATH_OPTIONS = {"rank": "0", "conv": "0", "qk_norm": "true", "forget_gate": "scaled"}
FIXTURES = {
    "fox": [
        (lambda *given: fox(*given, False), HEADS, 1, FOX),
        (lambda *given: fox(*given, True), HEADS | {"output_gate": "true"}, 1, FOX | {"gate.weight": (8, 8)}),
    ],
    "differential": [(differential, HEADS | {"head_dim": "4"}, 3, WIDE | LAMBDA)],
    "path": [
        (lambda *given: path(*given, 4, False, True, True, False), {"heads": "4"}, 1, PATH),
        (lambda *given: path(*given, 2, True, False, False, True), HEADS | PATH_OPTIONS, 1, PATH_FOX),
    ],
    "gated-attention": [(gated, HEADS | {"head_dim": "4", "rope_share": "0.5"}, 1, WIDE | {"gate.weight": (16, 8)})],
}


def made(mixer, options, layers, shapes):
    params = [{name: drawn(size).requires_grad_() for name, size in shapes.items()} for _ in range(layers)]
    shape = (BATCH, LENGTH, 8)
    x, grad_y = drawn(shape, -2.0, 2.0).requires_grad_(), drawn(shape)
    y = x
    for layer, p in enumerate(params):
        y = mixer(p, y, layer)
    y.backward(grad_y)
    named = {f"{layer}.{name}": value for layer, p in enumerate(params) for name, value in p.items()}
    return {
        "options": options,
        "layers": layers,
        "shape": shape,
        "params": {name: numbers(value) for name, value in named.items()},
        "x": numbers(x),
        "y": numbers(y),
        "grad_y": numbers(grad_y),
        "grad_x": numbers(x.grad),
        "grads": {name: numbers(value.grad) for name, value in named.items()},
    }


def main():
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, cases in FIXTURES.items():
        torch.manual_seed(sum(map(ord, name)))
        path = FOLDER / f"{name}.json"
        path.write_text(json.dumps([made(*case) for case in cases], separators=(",", ":")) + "\n")
        print(path.name, path.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
