"""Makes fixtures for the mixers of min-rnn, s4 and hyena: inputs, parameters, results and gradients, in float64 by PyTorch.

Usage: recurrences.py [NAME...]      needs: pip install torch

plugins/PLUGIN/tests/foreign/NAME.json is what `check_foreign` of the kit reads. Each mixer is computed in another way
than ours, from what is cited: scans in log space, convolutions with whole kernels, sums over all powers, and PyTorch's
own GRU. GELU is the tanh form, as here."""

import json
import math
import pathlib
import sys

import torch
from torch.nn import functional as F

torch.set_default_dtype(torch.float64)
ROOT = pathlib.Path(__file__).resolve().parents[2] / "plugins"


def weighted_sum(decay, value):
    """h_t = sum over s <= t of the product of decay from s + 1 to t times value_s; [B, T, W] each, any dtype."""
    rows = [value[:, 0]]
    for t in range(1, value.shape[1]):
        weights = torch.stack([torch.prod(decay[:, s + 1 : t + 1], 1) for s in range(t + 1)], 1)
        rows.append((weights * value[:, : t + 1]).sum(1))
    return torch.stack(rows, 1)


def log_scan(log_decay, log_value):
    """The same of positive numbers, as lucidrains/minGRU-pytorch has it (after glassroom/heinsen_sequence)."""
    total = log_decay.cumsum(1)
    return (total + (log_value - total).logcumsumexp(1)).exp()


def log_positive(x):
    return torch.where(x >= 0, (F.relu(x) + 0.5).log(), F.logsigmoid(x))


def minimal(p, x, layer, layers, options):
    """minGRU and minLSTM (arXiv 2410.01201): in log space where the candidate is positive, else by their section 3."""
    name = "to_hidden_and_gate" if f"{layer}.to_hidden_and_gate.weight" in p else "to_hidden_and_f_i_gate"
    y = F.linear(x, p[f"{layer}.{name}.weight"], p.get(f"{layer}.{name}.bias"))
    if name == "to_hidden_and_gate":
        hidden, gate = y.chunk(2, -1)
        log_keep, log_take = -F.softplus(gate), -F.softplus(-gate)
    else:
        hidden, forget, take = y.chunk(3, -1)
        difference = F.softplus(-forget) - F.softplus(-take)
        log_keep, log_take = -F.softplus(difference), -F.softplus(-difference)
    if options.get("candidate") == "linear":
        h = weighted_sum(log_keep.exp(), log_take.exp() * hidden)
    else:
        h = log_scan(log_keep, log_take + log_positive(hidden))
    out = p.get(f"{layer}.to_out.weight")
    return h if out is None else F.linear(h, out)


def hgrn(p, x, layer, layers, options):
    """HGRN (arXiv 2311.04823) in the form of fla/layers/hgrn.py and fla/models/hgrn/modeling_hgrn.py."""

    def project(name):
        y = F.linear(x, p[f"{layer}.{name}_proj.weight"])
        taps = p.get(f"{layer}.{name}_conv1d.weight")
        if taps is not None:
            padded = F.pad(y.transpose(1, 2), (taps.shape[1] - 1, 0))
            y = F.conv1d(padded, taps[:, None], groups=taps.shape[0]).transpose(1, 2)
        return y

    log_forget = F.logsigmoid(project("f"))
    bounds = p.get("0.lower_bounds")
    if bounds is not None and layer > 0:
        shares = bounds.softmax(0)
        bound = (shares.cumsum(0) - shares[0])[layer]
        log_forget = torch.logaddexp(bound.log(), torch.log1p(-bound) + log_forget)
    value = F.silu(project("i")) * (1 - log_forget.exp())
    h = weighted_sum(log_forget.exp(), value)
    normal = h * torch.rsqrt(h.square().mean(-1, keepdim=True) + 1e-6) * p[f"{layer}.g_norm.weight"]
    return F.linear(normal * F.silu(project("g")), p[f"{layer}.o_proj.weight"])


def gru(p, x, layer, layers, options):
    """torch.nn.GRU."""
    weights = [p[f"{layer}.{name}"] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
    hidden = weights[1].shape[1]
    start = torch.zeros(1, x.shape[0], hidden)
    h, _ = torch._VF.gru(x, start, weights, True, 1, 0.0, False, False, True)
    out = p.get(f"{layer}.out_proj.weight")
    return h if out is None else F.linear(h, out)


def glu(p, y, layer, options):
    y = F.gelu(y, approximate="tanh")
    dense = lambda name: F.linear(y, p[f"{layer}.{name}.weight"], p[f"{layer}.{name}.bias"])
    return {"full": lambda: dense("out1") * dense("out2").sigmoid(), "half": lambda: y * dense("out2").sigmoid()}.get(
        options.get("glu"), lambda: y
    )()


def discretised(number, step, options):
    """What the state and the input are multiplied by (arXiv 2208.04933, eq. 6; appendix of 2206.11893)."""
    if options.get("discretisation") == "bilinear":
        over = 1 / (1 - step / 2 * number)
        return over * (1 + step / 2 * number), over * step
    power = torch.exp(number * step)
    return power, (power - 1) / number


def s4d(p, x, layer, layers, options):
    """S4D as a convolution (state-spaces/s4, models/s4/s4d.py)."""
    get = lambda name: p[f"{layer}.{name}"]
    number = torch.complex(-get("log_A_real").exp(), get("A_imag")).T  # [H, N]
    c_re, c_im = get("C").chunk(2, 0)
    power, gain = discretised(number, get("log_dt").exp()[:, None], options)
    times = torch.arange(x.shape[1])
    kernel = 2 * torch.einsum("hn,hnl->hl", torch.complex(c_re, c_im).T * gain, power[..., None] ** times).real
    n = 2 * x.shape[1]
    y = torch.fft.irfft(torch.fft.rfft(x.transpose(1, 2), n) * torch.fft.rfft(kernel, n), n)[..., : x.shape[1]]
    return glu(p, y.transpose(1, 2) + x * get("D"), layer, options)


def s5(p, x, layer, layers, options):
    """S5 with conjugate symmetry (lindermanlab/S5, s5/ssm.py)."""
    get = lambda name: p[f"{layer}.{name}"]
    number = torch.complex(get("Lambda_re"), get("Lambda_im"))
    power, gain = discretised(number, get("log_step").exp(), options)
    b_re, b_im = get("B.weight").chunk(2, 0)
    c_re, c_im = get("C.weight").chunk(2, 1)
    value = torch.einsum("pd,btd->btp", gain[:, None] * torch.complex(b_re, b_im), x.to(torch.complex128))
    h = weighted_sum(power.expand_as(value), value)
    # Ours has the imaginary part of C with the sign that it has in the real part of the product.
    y = 2 * torch.einsum("dp,btp->btd", torch.complex(c_re, -c_im), h).real
    return glu(p, y + get("D") * x, layer, options)


def lru(p, x, layer, layers, options):
    """The linear recurrent unit (NicolasZucchet/minimal-LRU, lru/model.py)."""
    get = lambda name: p[f"{layer}.{name}"]
    power = torch.exp(torch.complex(-get("nu_log").exp(), get("theta_log").exp()))
    b_re, b_im = get("B.weight").chunk(2, 0)
    c_re, c_im = get("C.weight").chunk(2, 1)
    value = torch.einsum("pd,btd->btp", torch.complex(b_re, b_im) * get("gamma_log").exp()[:, None], x.to(torch.complex128))
    h = weighted_sum(power.expand_as(value), value)
    y = torch.einsum("dp,btp->btd", torch.complex(c_re, -c_im), h).real
    return glu(p, y + get("D") * x, layer, options)


def hyena(p, x, layer, layers, options):
    """The operator of HazyResearch/safari, standalone_hyena.py, its filter as long as all its positions."""
    get = lambda name: p[f"{layer}.{name}"]
    linear = lambda name, x: F.linear(x, get(f"{name}.weight"), get(f"{name}.bias"))
    number = lambda name: int(options[name])
    order, length, width = number("order"), number("filter_length"), x.shape[-1]
    taps = length * (number("reach") if options.get("past_filter") == "extended" else 1)
    times, bands = torch.arange(taps, dtype=torch.float64)[:, None], (number("emb_dim") - 1) // 2
    t = times / (length - 1)
    z = torch.exp(-1j * torch.linspace(1e-4, bands - 1, bands)[None] * 2 * math.pi * times / length)
    h = torch.cat([t, z.real, z.imag], -1)
    for index in range(number("inner_layers") + 1):
        h = torch.sin(get("filter.frequency") * linear(f"filter.in{index}", h))
    h = torch.cat([F.linear(h, get(f"filter.out{index}.weight")) for index in range(order - 1)], -1)
    deltas = torch.linspace(math.log(1e-2) / 1.5, math.log(1e-2) / 0.3, h.shape[-1])
    filters = (h * (torch.exp(-t * deltas.abs()) + float(options.get("shift", 0)))).T.reshape(order - 1, width, taps)
    u = linear("in_proj", x).transpose(1, 2)
    u = F.conv1d(u, get("short_filter.weight")[:, None], get("short_filter.bias"), padding=2, groups=u.shape[1])
    *gates, v = u[..., : x.shape[1]].split(width, 1)
    n = taps + x.shape[1]
    for index, gate in enumerate(reversed(gates[1:])):
        v = v * gate
        y = torch.fft.irfft(torch.fft.rfft(v, n) * torch.fft.rfft(filters[index], n), n)[..., : x.shape[1]]
        v = y + v * get(f"D{index}")[:, None]
    return linear("out_proj", (v * gates[0]).transpose(1, 2))


def dense(name, rows, cols):
    return {f"{name}.weight": (rows, cols), f"{name}.bias": (rows,)}


def case(mixer, options, layers, width, shapes):
    return dict(mixer=mixer, options=options, layers=layers, width=width, shapes=shapes)


def recurrent(names, gates, hidden, width, bias):
    shapes = {f"{names}.weight": (gates * hidden, width)}
    if bias:
        shapes[f"{names}.bias"] = (gates * hidden,)
    if hidden != width:
        shapes["to_out.weight"] = (width, hidden)
    return shapes


def minimal_cases(name, gates):
    return [
        case(minimal, {}, 1, 4, recurrent(name, gates, 4, 4, False)),
        case(minimal, {"candidate": "linear", "hidden": "5", "bias": "true"}, 1, 4, recurrent(name, gates, 5, 4, True)),
    ]


def hgrn_shapes(hidden, width, taps):
    shapes = {f"{name}_proj.weight": (hidden, width) for name in "ifg"} | {"g_norm.weight": (hidden,), "o_proj.weight": (width, hidden)}
    return shapes | ({f"{name}_conv1d.weight": (hidden, taps) for name in "if"} if taps else {})


def hyena_case(width, order, length, features, past):
    options = {"order": str(order), "filter_length": str(length), "emb_dim": str(features), "filter_order": "4", "inner_layers": "1"} | past
    shapes = dense("in_proj", (order + 1) * width, width) | dense("out_proj", width, width)
    shapes |= {"short_filter.weight": ((order + 1) * width, 3), "short_filter.bias": ((order + 1) * width,), "filter.frequency": (4,)}
    shapes |= dense("filter.in0", 4, features) | dense("filter.in1", 4, 4)
    for index in range(order - 1):
        shapes |= {f"D{index}": (width,), f"filter.out{index}.weight": (width, 4)}
    return case(hyena, options, 1, width, shapes)


S5 = {"Lambda_re": (4,), "Lambda_im": (4,), "log_step": (4,), "B.weight": (8, 3), "C.weight": (3, 8), "D": (3,)}
S4D = {"log_A_real": (3, 4), "A_imag": (3, 4), "C": (6, 4), "log_dt": (4,), "D": (4,)}
LRU = {"nu_log": (5,), "theta_log": (5,), "gamma_log": (5,), "B.weight": (10, 3), "C.weight": (3, 10), "D": (3,)}
GRU = lambda hidden, width: {"weight_ih": (3 * hidden, width), "bias_ih": (3 * hidden,), "weight_hh": (3 * hidden, hidden), "bias_hh": (3 * hidden,)}

FIXTURES = {
    "mingru": ("min-rnn", minimal_cases("to_hidden_and_gate", 2)),
    "minlstm": ("min-rnn", minimal_cases("to_hidden_and_f_i_gate", 3)),
    "gru": ("min-rnn", [case(gru, {}, 1, 4, GRU(4, 4)), case(gru, {"hidden": "5"}, 1, 3, GRU(5, 3) | {"out_proj.weight": (3, 5)})]),
    "hgrn": ("min-rnn", [
        case(hgrn, {}, 3, 4, hgrn_shapes(4, 4, 0) | {"lower_bounds": (3, 4)}),
        case(hgrn, {"hidden": "5", "lower_bound": "false", "conv": "3"}, 1, 3, hgrn_shapes(5, 3, 3)),
    ]),
    "s4d": ("s4", [
        case(s4d, {"state": "6", "glu": "full"}, 1, 4, S4D | dense("out1", 4, 4) | dense("out2", 4, 4)),
        case(s4d, {"state": "6", "glu": "none", "discretisation": "bilinear"}, 1, 4, S4D),
    ]),
    "s5": ("s4", [
        case(s5, {"state": "8", "glu": "half"}, 1, 3, S5 | dense("out2", 3, 3)),
        case(s5, {"state": "8", "blocks": "2", "glu": "none", "discretisation": "bilinear"}, 1, 3, S5),
    ]),
    "lru": ("s4", [case(lru, {"state": "5", "glu": "full"}, 1, 3, LRU | dense("out1", 3, 3) | dense("out2", 3, 3))]),
}
FIXTURES["hyena"] = ("hyena", [
    hyena_case(4, 2, 12, 5, {}),
    hyena_case(3, 3, 9, 3, {"shift": "0.25"}),
    hyena_case(3, 2, 4, 5, {"past_filter": "zero"}),
    hyena_case(3, 2, 4, 5, {"past_filter": "extended", "reach": "2"}),
])
# Where values around 0 would be no system that decays.
NEGATIVE = {"Lambda_re": (-1.0, -0.1), "log_step": (-3.0, -0.5), "log_dt": (-3.0, -0.5), "nu_log": (-2.0, 0.0), "A_imag": (-3.0, 3.0)}


def drawn(shape, low=-1.0, high=1.0):
    """Values that float32 and a short text have exactly enough of."""
    return ((low + (high - low) * torch.rand(shape)) * 1024).round() / 1024


def numbers(tensor):
    return [float(f"{value:.9g}") for value in tensor.detach().flatten().tolist()]


def made(mixer, options, layers, width, shapes):
    shape = (2, 9, width)
    params = {}
    for layer in range(layers):
        for name, size in shapes.items():
            if name != "lower_bounds" or layer == 0:
                params[f"{layer}.{name}"] = drawn(size, *NEGATIVE.get(name, (-1.0, 1.0))).requires_grad_()
    x, grad_y = drawn(shape, -2.0, 2.0).requires_grad_(), drawn(shape)
    y = x
    for layer in range(layers):
        y = mixer(params, y, layer, layers, options)
    y.backward(grad_y)
    return {
        "options": options,
        "layers": layers,
        "shape": shape,
        "params": {name: numbers(value) for name, value in params.items()},
        "x": numbers(x),
        "y": numbers(y),
        "grad_y": numbers(grad_y),
        "grad_x": numbers(x.grad),
        "grads": {name: numbers(value.grad) for name, value in params.items()},
    }


def main():
    for name in sys.argv[1:] or FIXTURES:
        plugin, cases = FIXTURES[name]
        torch.manual_seed(sum(map(ord, name)))
        folder = ROOT / plugin / "tests" / "foreign"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{name}.json"
        path.write_text(json.dumps([made(**case) for case in cases], separators=(",", ":")) + "\n")
        print(path.relative_to(ROOT.parent), path.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
