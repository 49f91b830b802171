"""Makes tiny checkpoints in the layout of state-spaces' own software (mamba_ssm), whose kernels need a GPU, with what its
formulas give in float64: mamba (arXiv 2312.00752, algorithm 2), mamba2 (arXiv 2405.21060, eq. 16, and section 7 for the block),
attention with a convolution, and the gated MLP.

Usage: state_spaces.py OUT      needs: pip install torch safetensors

OUT/NAME/ gets the files of make.py. The recurrences go token by token; nothing is shared with other software."""

import json
import math
import pathlib
import sys

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

VOCAB, LENGTH, D = 37, 40, 16
ATTENTION = dict(causal=True, num_heads=4, head_dim=6, qkv_proj_bias=False, out_proj_bias=False, rotary_emb_dim=4)
MODELS = {
    "state-spaces-mamba": dict(d_model=D, n_layer=2, ssm_cfg={}, rms_norm=True),
    "state-spaces-mamba2": dict(d_model=D, n_layer=2, ssm_cfg=dict(layer="Mamba2", d_state=6, headdim=8, ngroups=2), d_intermediate=0,
                                attn_layer_idx=[], attn_cfg={}, pad_vocab_size_multiple=16, tie_embeddings=True),
    "state-spaces-mamba2attn": dict(d_model=D, n_layer=3, ssm_cfg=dict(layer="Mamba2", d_state=5, headdim=8), d_intermediate=0, attn_layer_idx=[1],
                                    attn_cfg=dict(ATTENTION, num_heads_kv=2, d_conv=4)),
    "state-spaces-transformerpp": dict(d_model=D, n_layer=2, ssm_cfg=dict(layer="Mamba2"), d_intermediate=100, attn_layer_idx=[0, 1],
                                       attn_cfg=dict(ATTENTION, head_dim=4, d_conv=0, qkv_proj_bias=True, out_proj_bias=True)),
    "state-spaces-mamba2-norm-first": dict(d_model=D, n_layer=1, ssm_cfg=dict(layer="Mamba2", d_state=4, headdim=8, ngroups=2, norm_before_gate=True)),
}


def rms(x, weight):
    return x / torch.sqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5) * weight


def convolution(x, weight, bias):
    """x [B, T, C], weight [C, 1, W]: causal."""
    width = weight.shape[-1]
    padded = F.pad(x, (0, 0, width - 1, 0))
    return sum(padded[:, j:j + x.shape[1]] * weight[:, 0, j] for j in range(width)) + bias


def mamba(p, x, config):
    state, inner = 16, 2 * D
    rank = math.ceil(D / 16)
    u, z = (x @ p["in_proj.weight"].T).split(inner, -1)
    u = F.silu(convolution(u, p["conv1d.weight"], p["conv1d.bias"]))
    dt, b, c = (u @ p["x_proj.weight"].T).split([rank, state, state], -1)
    dt = F.softplus(dt @ p["dt_proj.weight"].T + p["dt_proj.bias"])
    a, h, ys = -p["A_log"].exp(), 0, []
    for t in range(x.shape[1]):
        h = torch.exp(dt[:, t, :, None] * a) * h + (dt[:, t] * u[:, t])[..., None] * b[:, t, None]
        ys.append((h * c[:, t, None]).sum(-1) + p["D"] * u[:, t])
    return (torch.stack(ys, 1) * F.silu(z)) @ p["out_proj.weight"].T


def mamba2(p, x, config):
    ssm = config["ssm_cfg"]
    state, width, groups, inner = ssm["d_state"], ssm["headdim"], ssm.get("ngroups", 1), 2 * D
    heads = inner // width
    z, xbc, dt = (x @ p["in_proj.weight"].T).split([inner, inner + 2 * groups * state, heads], -1)
    xbc = F.silu(convolution(xbc, p["conv1d.weight"], p["conv1d.bias"]))
    u, b, c = xbc.split([inner, groups * state, groups * state], -1)
    u = u.unflatten(-1, (heads, width))
    b, c = (v.unflatten(-1, (groups, state)).repeat_interleave(heads // groups, 2) for v in (b, c))
    dt = F.softplus(dt + p["dt_bias"])
    a, h, ys = -p["A_log"].exp(), 0, []
    for t in range(x.shape[1]):
        h = torch.exp(dt[:, t] * a)[..., None, None] * h + dt[:, t, :, None, None] * u[:, t, :, :, None] * b[:, t, :, None]
        ys.append((h * c[:, t, :, None]).sum(-1) + p["D"][:, None] * u[:, t])
    norm = lambda y: rms(y.unflatten(-1, (groups, inner // groups)), p["norm.weight"].unflatten(0, (groups, -1))).flatten(2)
    y, gate = torch.stack(ys, 1).flatten(2), F.silu(z)
    return (norm(y) * gate if ssm.get("norm_before_gate") else norm(y * gate)) @ p["out_proj.weight"].T


def attention(p, x, config):
    cfg = config["attn_cfg"]
    heads, width, turned = cfg["num_heads"], cfg["head_dim"], cfg["rotary_emb_dim"]
    kv = cfg.get("num_heads_kv", heads)
    qkv = x @ p["in_proj.weight"].T + p.get("in_proj.bias", 0)
    if cfg["d_conv"]:
        qkv = convolution(qkv, p["conv1d.weight"], p["conv1d.bias"])
    q, k, v = qkv.split([heads * width, kv * width, kv * width], -1)
    q, k, v = (part.unflatten(-1, (-1, width)) for part in (q, k, v))
    angle = torch.arange(x.shape[1])[:, None] * 10000.0 ** (-torch.arange(0, turned, 2, dtype=torch.float64) / turned)
    cos, sin = angle.cos()[:, None], angle.sin()[:, None]
    def turn(part):
        first, second, rest = part.split([turned // 2, turned // 2, width - turned], -1)
        return torch.cat([first * cos - second * sin, second * cos + first * sin, rest], -1)
    q, k = turn(q), turn(k).repeat_interleave(heads // kv, 2)
    v = v.repeat_interleave(heads // kv, 2)
    weights = torch.einsum("bihk,bjhk->bhij", q, k) / math.sqrt(width)
    later = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)
    weights = weights.masked_fill(later, -math.inf).softmax(-1)
    return torch.einsum("bhij,bjhk->bihk", weights, v).flatten(2) @ p["out_proj.weight"].T + p.get("out_proj.bias", 0)


def shapes(config):
    """Names and shapes of the tensors, and each layer's mixer."""
    vocab, inner = math.ceil(VOCAB / config.get("pad_vocab_size_multiple", 8)) * config.get("pad_vocab_size_multiple", 8), 2 * D
    all, mixers = {"backbone.embedding.weight": (vocab, D), "backbone.norm_f.weight": (D,)}, []
    hidden = math.ceil(config.get("d_intermediate", 0) / 128) * 128
    for layer in range(config["n_layer"]):
        at = f"backbone.layers.{layer}."
        all[at + "norm.weight"] = (D,)
        if hidden:
            all |= {at + "norm2.weight": (D,), at + "mlp.fc1.weight": (2 * hidden, D), at + "mlp.fc2.weight": (D, hidden)}
        ssm, cfg = config["ssm_cfg"], config.get("attn_cfg")
        if layer in config.get("attn_layer_idx", []):
            q, qkv = cfg["num_heads"] * cfg["head_dim"], (cfg["num_heads"] + 2 * cfg.get("num_heads_kv", cfg["num_heads"])) * cfg["head_dim"]
            own = {"in_proj.weight": (qkv, D), "out_proj.weight": (D, q)}
            own |= {"in_proj.bias": (qkv,), "out_proj.bias": (D,)} if cfg["qkv_proj_bias"] else {}
            own |= {"conv1d.weight": (qkv, 1, cfg["d_conv"]), "conv1d.bias": (qkv,)} if cfg["d_conv"] else {}
            mixers.append(attention)
        elif ssm.get("layer") == "Mamba2":
            heads, mixed = inner // ssm["headdim"], inner + 2 * ssm.get("ngroups", 1) * ssm["d_state"]
            own = {"in_proj.weight": (inner + mixed + heads, D), "conv1d.weight": (mixed, 1, 4), "conv1d.bias": (mixed,), "dt_bias": (heads,),
                   "A_log": (heads,), "D": (heads,), "norm.weight": (inner,), "out_proj.weight": (D, inner)}
            mixers.append(mamba2)
        else:
            rank = math.ceil(D / 16)
            own = {"in_proj.weight": (2 * inner, D), "conv1d.weight": (inner, 1, 4), "conv1d.bias": (inner,), "x_proj.weight": (rank + 32, inner),
                   "dt_proj.weight": (inner, rank), "dt_proj.bias": (inner,), "A_log": (inner, 16), "D": (inner,), "out_proj.weight": (D, inner)}
            mixers.append(mamba)
        all |= {at + "mixer." + name: shape for name, shape in own.items()}
    return vocab, all, mixers


def make(folder, config, seed):
    torch.manual_seed(seed)
    vocab, all, mixers = shapes(config)
    weights = {name: torch.randn(shape) * 0.3 + ("norm" in name) for name, shape in all.items()}
    folder.mkdir(parents=True, exist_ok=True)
    save_file(dict(weights, **{"lm_head.weight": weights["backbone.embedding.weight"].clone()}), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(dict(config, vocab_size=VOCAB, residual_in_fp32=True, fused_add_norm=True), indent=2) + "\n")
    p = {name: weight.double().requires_grad_() for name, weight in weights.items()}
    tokens = torch.randint(0, VOCAB, (2, LENGTH))
    x = p["backbone.embedding.weight"][tokens]
    for layer, mixer in enumerate(mixers):
        at = f"backbone.layers.{layer}."
        own = {name.removeprefix(at + "mixer."): value for name, value in p.items() if name.startswith(at + "mixer.")}
        x = x + mixer(own, rms(x, p[at + "norm.weight"]), config)
        if at + "mlp.fc1.weight" in p:
            up, gate = (rms(x, p[at + "norm2.weight"]) @ p[at + "mlp.fc1.weight"].T).chunk(2, -1)
            x = x + (up * F.silu(gate)) @ p[at + "mlp.fc2.weight"].T
    logits = rms(x, p["backbone.norm_f.weight"]) @ p["backbone.embedding.weight"].T
    loss = F.cross_entropy(logits[:, :-1].reshape(-1, vocab), tokens[:, 1:].reshape(-1))
    loss.backward()
    expected = {"tokens": tokens, "logits": logits.detach().float().contiguous(), "loss": loss.detach().reshape(1)}
    save_file(expected | {"grad." + name: value.grad.float().contiguous() for name, value in p.items()}, folder / "expected.safetensors")
    (folder / "SOURCE.txt").write_text(f"tests/checkpoints/state_spaces.py, seed {seed}; torch {torch.__version__}\n")


if __name__ == "__main__":
    for number, (name, config) in enumerate(MODELS.items()):
        make(pathlib.Path(sys.argv[1]) / name, config, 200 + number)
        print(pathlib.Path(sys.argv[1]) / name)
