"""Makes the fixture for mamba3: inputs, parameters, results and gradients, in float64 by PyTorch.

Usage: mamba3.py MAMBA      needs: pip install torch; MAMBA is a checkout of state-spaces/mamba (commit e9594ce)

The recurrence is `mamba3_siso_step_ref` of tests/ops/triton/test_mamba3_siso.py there, as it is; the file itself cannot be
imported without a card. The layer around it is modules/mamba3.py, whose kernels need a card too, in its formulas. What
pairs up to turn is neighbours there, halves here: `theirs` is the order there.
plugins/mamba/tests/foreign/mamba3.json is what `check_foreign` of the kit reads."""

import ast
import json
import math
import pathlib
import sys
from typing import Optional, Tuple

import torch
from torch.nn import functional as F

torch.set_default_dtype(torch.float64)
OUT = pathlib.Path(__file__).resolve().parents[2] / "plugins/mamba/tests/foreign/mamba3.json"
B, T, D = 2, 9, 4


def reference(checkout):
    text = (pathlib.Path(checkout) / "tests/ops/triton/test_mamba3_siso.py").read_text()
    wanted = [node for node in ast.parse(text).body if getattr(node, "name", "") == "mamba3_siso_step_ref"]
    names = dict(torch=torch, F=F, math=math, Optional=Optional, Tuple=Tuple)
    exec(compile(ast.Module(wanted, []), "test_mamba3_siso.py", "exec"), names)
    return names["mamba3_siso_step_ref"]


def rms(x, weight):
    return x / torch.sqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5) * weight


def layer(step_ref, p, x, options):
    state, head_dim, groups = (int(options[key]) for key in ("state", "head_dim", "groups"))
    inner, turning = 2 * D, int(state * float(options["rope_fraction"]))
    heads, n = inner // head_dim, turning // 2
    widths = [inner, inner, groups * state, groups * state, heads, heads, heads, n]
    z, v, b, c, dt, a, trap, angles = F.linear(x, p["in_proj.weight"]).split(widths, -1)
    if options["a_activation"] == "softplus":
        rate = F.softplus(a)
    else:
        rate = a.clamp_min(0) + 1 / (1 - a.clamp_max(0))
    rate = rate.clamp(min=1e-4)
    dt = F.softplus(dt + p["dt_bias"])
    theirs = [index // 2 + index % 2 * n for index in range(turning)] + list(range(turning, state))

    def by_head(x, norm):
        normal = rms(x.unflatten(-1, (groups, state)), norm)
        return normal.repeat_interleave(heads // groups, 2)[..., theirs]

    y, _ = step_ref(
        by_head(c, p["C_norm.weight"]), by_head(b, p["B_norm.weight"]), v.unflatten(-1, (heads, head_dim)),
        (-rate * dt).mT, dt.mT, trap.mT, p["C_bias"][:, theirs], p["B_bias"][:, theirs],
        angles.unsqueeze(2).expand(-1, -1, heads, -1), p["D"],
        None if options["norm_before_gate"] == "true" else z.unflatten(-1, (heads, head_dim)))
    if options["norm_before_gate"] == "true":
        y = rms(y, p["norm.weight"].unflatten(0, (heads, head_dim))) * F.silu(z.unflatten(-1, (heads, head_dim)))
    return F.linear(y.flatten(2), p["out_proj.weight"])


def draw(*shape):
    return (torch.randn(*shape) * 1000).round() / 1000


def case(step_ref, **options):
    state, head_dim, groups = (int(options[key]) for key in ("state", "head_dim", "groups"))
    inner, heads = 2 * D, 2 * D // head_dim
    n = int(state * float(options["rope_fraction"])) // 2
    shapes = {"in_proj.weight": (2 * inner + 2 * groups * state + 3 * heads + n, D), "dt_bias": (heads,),
              "B_norm.weight": (state,), "C_norm.weight": (state,), "B_bias": (heads, state), "C_bias": (heads, state),
              "D": (heads,), "out_proj.weight": (D, inner)}
    if options["norm_before_gate"] == "true":
        shapes["norm.weight"] = (inner,)
    p = {name: draw(*shape).requires_grad_() for name, shape in shapes.items()}
    x, grad_y = draw(B, T, D).requires_grad_(), draw(B, T, D)
    y = layer(step_ref, p, x, options)
    y.backward(grad_y)
    flat = lambda values: [float(f"{value:.8g}") for value in values.detach().flatten().tolist()]
    return dict(options=options, layers=1, shape=[B, T, D], params={f"0.{name}": flat(value) for name, value in p.items()},
                x=flat(x), y=flat(y), grad_y=flat(grad_y), grad_x=flat(x.grad),
                grads={f"0.{name}": flat(value.grad) for name, value in p.items()})


def main():
    torch.manual_seed(3)
    step_ref = reference(sys.argv[1])
    cases = [
        case(step_ref, state="8", head_dim="4", groups="1", rope_fraction="0.5", a_activation="heavy_tail",
             norm_before_gate="false"),
        case(step_ref, state="6", head_dim="2", groups="2", rope_fraction="1.0", a_activation="softplus",
             norm_before_gate="true"),
    ]
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps(cases, separators=(",", ":")) + "\n")


main()
