"""Makes the fixture for mamba3: inputs, parameters, results and gradients, in float64 by PyTorch.

Usage: mamba3.py MAMBA      needs: pip install torch einops; MAMBA is a checkout of state-spaces/mamba (commit e9594ce)

The recurrences are `mamba3_siso_step_ref` of tests/ops/triton/test_mamba3_siso.py there and `mamba3_MIMO_step_ref` of
tests/ops/tilelang/test_mamba3_mimo.py, as they are; the files themselves cannot be imported without a card. The layer around it is modules/mamba3.py, whose kernels need a card too, in its formulas. What
pairs up to turn is neighbours there, halves here: `theirs` is the order there.
plugins/mamba/tests/foreign/mamba3.json is what `check_foreign` of the kit reads."""

import ast
import json
import math
import pathlib
import sys
from typing import Optional, Tuple

import torch
from einops import rearrange, repeat
from torch.nn import functional as F

torch.set_default_dtype(torch.float64)
torch.Tensor.float = torch.Tensor.double  # the norm of mamba3_MIMO_step_ref, in float64 as all else
OUT = pathlib.Path(__file__).resolve().parents[2] / "plugins/mamba/tests/foreign/mamba3.json"
B, T, D = 2, 9, 4


def reference(checkout, file, name):
    text = (pathlib.Path(checkout) / "tests/ops" / file).read_text()
    wanted = [node for node in ast.parse(text).body if getattr(node, "name", "") == name]
    names = dict(torch=torch, F=F, math=math, Optional=Optional, Tuple=Tuple, rearrange=rearrange, repeat=repeat)
    exec(compile(ast.Module(wanted, []), file, "exec"), names)
    return names[name]


def rms(x, weight):
    return x / torch.sqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5) * weight


def layer(siso, mimo, p, x, options):
    state, head_dim, groups, rank = (int(options[key]) for key in ("state", "head_dim", "groups", "mimo_rank"))
    inner, turning = 2 * D, int(state * float(options["rope_fraction"]))
    heads, n = inner // head_dim, turning // 2
    widths = [inner, inner, rank * groups * state, rank * groups * state, heads, heads, heads, n]
    z, v, b, c, dt, a, trap, angles = F.linear(x, p["in_proj.weight"]).split(widths, -1)
    if options["a_activation"] == "softplus":
        rate = F.softplus(a)
    else:
        rate = a.clamp_min(0) + 1 / (1 - a.clamp_max(0))
    rate = rate.clamp(min=1e-4)
    dt = F.softplus(dt + p["dt_bias"])
    theirs = [index // 2 + index % 2 * n for index in range(turning)] + list(range(turning, state))

    def normal(x, norm):
        return rms(x.unflatten(-1, (rank, groups, state)), norm)[..., theirs]

    v, z = (part.unflatten(-1, (heads, head_dim)) for part in (v, z))
    angles = angles.unsqueeze(2).expand(-1, -1, heads, -1)
    b, c, is_norm = normal(b, p["B_norm.weight"]), normal(c, p["C_norm.weight"]), options["norm_before_gate"] == "true"
    steps = (-rate * dt).mT, dt.mT, trap.mT
    if rank > 1:
        of = lambda name: torch.stack([p[f"{name}.{index}"] for index in range(rank)], 1)
        y, _ = mimo(c, b, v, *steps, of("C_bias")[..., theirs], of("B_bias")[..., theirs], angles, of("mimo_x"),
                    of("mimo_o"), p["D"], z, of("mimo_z"), fused_norm=is_norm,
                    outproj_norm_weight=p["norm.weight"].unflatten(0, (heads, head_dim)) if is_norm else None)
        return F.linear(y.flatten(2), p["out_proj.weight"])
    b, c = (part.squeeze(2).repeat_interleave(heads // groups, 2) for part in (b, c))
    y, _ = siso(c, b, v, *steps, p["C_bias"][:, theirs], p["B_bias"][:, theirs], angles, p["D"], None if is_norm else z)
    if is_norm:
        y = rms(y, p["norm.weight"].unflatten(0, (heads, head_dim))) * F.silu(z)
    return F.linear(y.flatten(2), p["out_proj.weight"])


def draw(*shape):
    return (torch.randn(*shape) * 1000).round() / 1000


def case(siso, mimo, **options):
    options.setdefault("mimo_rank", "1")
    state, head_dim, groups, rank = (int(options[key]) for key in ("state", "head_dim", "groups", "mimo_rank"))
    inner, heads = 2 * D, 2 * D // head_dim
    n = int(state * float(options["rope_fraction"])) // 2
    shapes = {"in_proj.weight": (2 * inner + 2 * rank * groups * state + 3 * heads + n, D), "dt_bias": (heads,),
              "B_norm.weight": (state,), "C_norm.weight": (state,)}
    if rank == 1:
        shapes |= {"B_bias": (heads, state), "C_bias": (heads, state)}
    else:
        shapes |= {f"{name}.{index}": (heads, state if "bias" in name else head_dim)
                   for name in ("B_bias", "C_bias", "mimo_x", "mimo_z", "mimo_o") for index in range(rank)}
    shapes |= {"D": (heads,), "out_proj.weight": (D, inner)}
    if options["norm_before_gate"] == "true":
        shapes["norm.weight"] = (inner,)
    p = {name: draw(*shape).requires_grad_() for name, shape in shapes.items()}
    x, grad_y = draw(B, T, D).requires_grad_(), draw(B, T, D)
    y = layer(siso, mimo, p, x, options)
    y.backward(grad_y)
    flat = lambda values: [float(f"{value:.8g}") for value in values.detach().flatten().tolist()]
    return dict(options=options, layers=1, shape=[B, T, D], params={f"0.{name}": flat(value) for name, value in p.items()},
                x=flat(x), y=flat(y), grad_y=flat(grad_y), grad_x=flat(x.grad),
                grads={f"0.{name}": flat(value.grad) for name, value in p.items()})


def main():
    torch.manual_seed(3)
    references = (reference(sys.argv[1], "triton/test_mamba3_siso.py", "mamba3_siso_step_ref"),
                  reference(sys.argv[1], "tilelang/test_mamba3_mimo.py", "mamba3_MIMO_step_ref"))
    cases = [
        case(*references, state="8", head_dim="4", groups="1", rope_fraction="0.5", a_activation="heavy_tail",
             norm_before_gate="false"),
        case(*references, state="6", head_dim="2", groups="2", rope_fraction="1.0", a_activation="softplus",
             norm_before_gate="true"),
        case(*references, state="8", head_dim="4", groups="1", rope_fraction="0.5", a_activation="heavy_tail",
             norm_before_gate="false", mimo_rank="2"),
        case(*references, state="6", head_dim="2", groups="2", rope_fraction="1.0", a_activation="softplus",
             norm_before_gate="true", mimo_rank="3"),
    ]
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps(cases, separators=(",", ":")) + "\n")


main()
