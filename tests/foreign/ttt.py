"""Makes fixtures for the mixers of plugins/ttt from others' own layers, in float64 on a CPU.

Usage: ttt.py FOLDER      FOLDER: a clone of github.com/test-time-training/ttt-lm-pytorch (here at cd831db)
                          needs: pip install torch transformers titans-pytorch (here 0.5.5)

plugins/ttt/tests/foreign/NAME.json is what `check_foreign` of the kit reads."""

import json
import sys

import torch
from recurrences import ROOT, case, made
from titans_pytorch.memory_models import MemoryMLP
from titans_pytorch.neural_memory import NeuralMemory
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F

sys.path.insert(0, sys.argv[1])
from ttt import TTTConfig, TTTLinear  # noqa: E402


def ttt_linear(p, x, layer, layers, options):
    """The authors' layer. Rotary pairs are neighbours there and halves of a head here, so that columns of heads are in
    another order."""
    get = lambda name: p[f"{layer}.{name}"]
    cols, width = x.shape[-1], int(options["head_dim"])
    heads, taps = cols // width, int(options.get("conv", 4))
    shared, gated = (options.get(name) == "true" for name in ("share_qk", "gate"))
    config = TTTConfig(
        hidden_size=cols,
        num_attention_heads=heads,
        mini_batch_size=int(options["mini_batch"]),
        ttt_base_lr=float(options.get("base_rate", 1)),
        rope_theta=float(options.get("theta", 10000)),
        use_gate=gated,
        share_qk=shared,
        conv_kernel=taps,
    )
    head = torch.arange(width).view(2, width // 2).T.flatten()
    order = torch.cat([head + width * index for index in range(heads)])
    by_head = lambda name: get(name)[order].view(heads, width)
    theirs = {f"{name}_proj.weight": get(f"{name}_proj.weight")[order] for name in ("qv" if shared else "qkv")}
    theirs |= {f"post_norm.{part}": get(f"post_norm.{part}")[order] for part in ("weight", "bias")}
    theirs |= {f"ttt_norm_{part}": by_head(f"ttt_norm.{part}") for part in ("weight", "bias")}
    theirs |= {
        "o_proj.weight": get("o_proj.weight")[:, order],
        "learnable_ttt_lr_weight": get("rate.weight")[:, None],
        "learnable_ttt_lr_bias": get("rate.bias")[:, None],
        "learnable_token_idx": get("learnable_token_idx"),
        "W1": get("W1")[:, head][:, :, head],
        "b1": get("b1")[:, None, head],
    }
    if gated:
        theirs["g_proj.weight"] = get("g_proj.weight")[order]
    if shared:
        for name in ("conv_q", "conv_k"):
            theirs |= {f"{name}.weight": get(f"{name}.weight")[order][:, None], f"{name}.bias": get(f"{name}.bias")[order]}
    module = TTTLinear(config, layer)
    assert set(theirs) == {name for name, _ in module.named_parameters()}
    return functional_call(module, theirs, (x,), {"position_ids": torch.arange(x.shape[1])[None]})


class Columns(nn.Module):
    """Columns of what it is given, in place of a projection."""

    def __init__(self, start, count):
        super().__init__()
        self.columns = slice(start, start + count)

    def forward(self, x):
        return x[..., self.columns]


def titans(p, x, layer, layers, options):
    """lucidrains' memory, of one matrix, with a rate, momentum and decay of each token (a chunk of one) and gradients at
    the weights of a batch's beginning; what is before and behind it stands here."""
    get = lambda name: p[f"{layer}.{name}"]
    cols, width = x.shape[-1], int(options["head_dim"])
    heads = cols // width
    keeps, moves = (options.get(name) != "false" for name in ("decay", "momentum"))
    taps = get("conv1d.weight")
    qkv = F.pad(F.linear(x, get("in_proj.weight")).transpose(1, 2), (taps.shape[1] - 1, 0))
    q, k, v = F.silu(F.conv1d(qkv, taps[:, None], groups=3 * cols)).transpose(1, 2).chunk(3, -1)
    unit = lambda y: (lambda y: (y * torch.rsqrt(y.square().sum(-1, keepdim=True) + 1e-6)).flatten(-2))(y.unflatten(-1, (heads, width)))
    paces = F.linear(x, get("paces.weight"), get("paces.bias")).split(heads, -1)
    # Its sigmoid is what is forgotten.
    forget = -paces[1] if keeps else torch.full_like(paces[0], -60.0)
    given = torch.cat([unit(q), unit(k), v, paces[0], forget, paces[-1]], -1)
    memory = NeuralMemory(
        dim=given.shape[-1],
        dim_head=width,
        heads=heads,
        chunk_size=1,
        batch_size=int(options["mini_batch"]),
        model=MemoryMLP(width, depth=1),
        momentum=moves,
        pre_rmsnorm=False,
        mem_model_norm_add_residual=False,
        default_step_transform_max_lr=float(options.get("max_rate", 1)),
    )
    memory.to_queries, memory.to_keys, memory.to_values = (Columns(index * cols, cols) for index in range(3))
    memory.to_adaptive_step[0] = Columns(3 * cols, heads)
    memory.to_decay_factor[0] = Columns(3 * cols + heads, heads)
    if moves:
        memory.to_momentum[0] = Columns(3 * cols + 2 * heads, heads)
    memory.combine_heads, memory.retrieve_gate = nn.Identity(), None
    read, _ = functional_call(memory, {"memory_model_parameters.0": get("memory")}, given)
    read = read.unflatten(-1, (heads, width))
    y = (read * torch.rsqrt(read.square().mean(-1, keepdim=True) + 1e-6) * get("norm.weight")).flatten(-2)
    if options.get("gate") != "false":
        y = y * F.silu(F.linear(x, get("g_proj.weight")))
    return F.linear(y, get("out_proj.weight"))


def ttt_case(heads, width, options):
    cols, size = heads * width, int(options["mini_batch"])
    shared = options.get("share_qk") == "true"
    names = ("qvo" if shared else "qkvo") + ("g" if options.get("gate") == "true" else "")
    shapes = {f"{name}_proj.weight": (cols, cols) for name in names}
    if shared:
        for name in ("conv_q", "conv_k"):
            shapes |= {f"{name}.weight": (cols, int(options["conv"])), f"{name}.bias": (cols,)}
    shapes |= {f"{norm}.{part}": (cols,) for norm in ("ttt_norm", "post_norm") for part in ("weight", "bias")}
    shapes |= {"rate.weight": (heads, cols), "rate.bias": (heads,), "W1": (heads, width, width), "b1": (heads, width), "learnable_token_idx": (size,)}
    return case(ttt_linear, {"head_dim": str(width)} | options, 1, cols, shapes)


def titans_case(heads, width, options):
    cols = heads * width
    paces = heads * (1 + sum(options.get(name) != "false" for name in ("decay", "momentum")))
    shapes = {"in_proj.weight": (3 * cols, cols), "conv1d.weight": (3 * cols, int(options["conv"])), "paces.weight": (paces, cols), "paces.bias": (paces,)}
    shapes |= {"memory": (heads, width, width), "norm.weight": (width,), "out_proj.weight": (cols, cols)}
    if options.get("gate") != "false":
        shapes["g_proj.weight"] = (cols, cols)
    return case(titans, {"head_dim": str(width)} | options, 1, cols, shapes)


FIXTURES = {
    "ttt-linear": [
        ttt_case(2, 4, {"mini_batch": "4"}),
        ttt_case(1, 6, {"mini_batch": "3", "base_rate": "2", "theta": "100", "gate": "true", "share_qk": "true", "conv": "2"}),
    ],
    "titans": [
        titans_case(2, 4, {"mini_batch": "4", "conv": "3"}),
        titans_case(2, 3, {"mini_batch": "2", "conv": "2", "momentum": "false", "max_rate": "0.5"}),
        titans_case(2, 2, {"mini_batch": "16", "conv": "2", "decay": "false", "gate": "false"}),
    ],
}


def main():
    for name, cases in FIXTURES.items():
        torch.manual_seed(sum(map(ord, name)))
        path = ROOT / "ttt" / "tests" / "foreign" / f"{name}.json"
        path.write_text(json.dumps([made(**case) for case in cases], separators=(",", ":")) + "\n")
        print(path.relative_to(ROOT.parent), path.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
