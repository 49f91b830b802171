"""Makes the fixture for log-linear-attention: inputs, parameters, results and gradients, in float64 by fla.

fla's `hmamba_chunk_scan_combined` with its own naive function where its kernel needs a card; the projections, the
convolution and the gated norm around it are those of its layer in their formulas.

    pip install torch transformers einops && pip install --no-deps flash-linear-attention==0.6.0 fla-core==0.6.0
    python tests/foreign/log_linear.py      # writes plugins/mamba2/tests/foreign/log-linear-attention.json
"""

import json
import pathlib

import torch
from fla.layers import log_linear_mamba2
from fla.ops.log_linear_attn.naive import naive_log_linear_attn
from recurrences import drawn, numbers
from torch.nn import functional as F

torch.set_default_dtype(torch.float64)
log_linear_mamba2.chunk_log_linear_attn = lambda q, k, v, g, level_scales, scale, **_: (
    naive_log_linear_attn(q, k, v, g, level_scales, scale),
    None,
)
OUT = pathlib.Path(__file__).resolve().parents[2] / "plugins/mamba2/tests/foreign/log-linear-attention.json"
BATCH, LENGTH, D, CONV = 2, 9, 4, 4
INNER, LEVELS = 2 * D, 5  # as many as nine tokens have


def layer(p, x, state, head_dim, groups):
    heads = INNER // head_dim
    widths = [INNER, INNER + 2 * groups * state, heads, heads * LEVELS]
    z, xbc, dt, dl = F.linear(x, p["in_proj.weight"]).split(widths, -1)
    xbc = F.conv1d(F.pad(xbc.mT, (CONV - 1, 0)), p["conv1d.weight"][:, None], p["conv1d.bias"], groups=widths[1])
    v, b, c = F.silu(xbc).mT.split([INNER, groups * state, groups * state], -1)
    y, _ = log_linear_mamba2.hmamba_chunk_scan_combined(
        v.unflatten(-1, (heads, head_dim)), dt, -p["A_log"].exp(), b.unflatten(-1, (groups, state)),
        c.unflatten(-1, (groups, state)), dl.unflatten(-1, (heads, LEVELS)), p["L"], 64, D=p["D"],
        dt_bias=p["dt_bias"], dt_softplus=True)
    gated = (y.flatten(2) * F.silu(z)).unflatten(-1, (groups, INNER // groups))
    normal = gated / (gated.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt()
    return F.linear(normal.flatten(2) * p["norm.weight"], p["out_proj.weight"])


def case(state, head_dim, groups):
    heads, mixed = INNER // head_dim, INNER + 2 * groups * state
    shapes = {"in_proj.weight": (INNER + mixed + heads * (LEVELS + 1), D), "conv1d.weight": (mixed, CONV),
              "conv1d.bias": (mixed,), "dt_bias": (heads,), "A_log": (heads,), "D": (heads,), "L": (heads, LEVELS),
              "norm.weight": (INNER,), "out_proj.weight": (D, INNER)}
    p = {name: drawn(shape).requires_grad_() for name, shape in shapes.items()}
    x, grad_y = drawn((BATCH, LENGTH, D), -2.0, 2.0).requires_grad_(), drawn((BATCH, LENGTH, D))
    y = layer(p, x, state, head_dim, groups)
    y.backward(grad_y)
    options = {"state": state, "head_dim": head_dim, "groups": groups, "levels": LEVELS}
    return {
        "options": {name: str(value) for name, value in options.items()},
        "layers": 1,
        "shape": list(x.shape),
        "params": {f"0.{name}": numbers(value) for name, value in p.items()},
        "x": numbers(x),
        "y": numbers(y),
        "grad_y": numbers(grad_y),
        "grad_x": numbers(x.grad),
        "grads": {f"0.{name}": numbers(value.grad) for name, value in p.items()},
    }


if __name__ == "__main__":
    torch.manual_seed(16)
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps([case(3, 4, 1), case(2, 2, 2)], separators=(",", ":")) + "\n")
    print(OUT.name, OUT.stat().st_size, "bytes")
