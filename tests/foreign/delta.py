"""What fla's layers give, for plugins/delta/tests/foreign.rs.

fla's kernels need a card. In their place stand fla's own naive functions, and of a short convolution and a gated norm
their formulas in PyTorch; the layers around them are fla's, as they are. A model here is an embedding, a norm, one
such layer, a norm and a head.

    pip install torch einops && pip install --no-deps flash-linear-attention==0.6.0 fla-core==0.6.0
    python tests/foreign/delta.py          # writes tests/foreign/delta/*.json
"""

import json
import pathlib
import sys

import torch
import torch.nn.functional as F

import fla
from fla.layers import comba, delta_net, gated_deltanet, gated_deltaproduct, gdn2, kda, mesa_net
from fla.modules import FusedRMSNormGated, RMSNorm, ShortConvolution
from fla.ops.comba.naive import naive_recurrent_comba
from fla.ops.delta_rule.naive import delta_rule_recurrence
from fla.ops.gated_delta_rule.naive import naive_recurrent_gated_delta_rule
from fla.ops.gdn2.naive import naive_recurrent_gdn2
from fla.ops.kda.gate import naive_kda_gate, naive_kda_lowerbound_gate
from fla.ops.kda.naive import naive_recurrent_kda
from fla.ops.mesa_net.naive import naive_mesa_net_exact

FOLDER = pathlib.Path(__file__).parent / "delta"
HIDDEN, VOCAB, LENGTH = 12, 7, 11
EPSILON = 1e-5


def unit(x):
    return x / torch.sqrt((x * x).sum(-1, keepdim=True) + 1e-6)


def convolution(self, x, **_):
    width = self.weight.shape[-1]
    x = F.pad(x.transpose(1, 2), (width - 1, 0))
    return F.silu(F.conv1d(x, self.weight, self.bias, groups=x.shape[1]).transpose(1, 2)), None


def norm(self, x):
    return x / torch.sqrt((x * x).mean(-1, keepdim=True) + self.eps) * self.weight


def gated_norm(self, x, g):
    return norm(self, x) * (F.sigmoid(g) if self.activation == "sigmoid" else F.silu(g))


ShortConvolution.forward, RMSNorm.forward, FusedRMSNormGated.forward = convolution, norm, gated_norm
gated_deltanet.GatedDeltaNet._use_fused_qkv_conv = lambda *_, **__: False


def repeat(x, heads):
    return x.repeat_interleave(heads // x.shape[2], 2)


def delta_rule(q, k, v, beta, **_):
    q, k = unit(q), unit(k)
    o, state = delta_rule_recurrence(*(x.transpose(1, 2) for x in (q, k, v, beta)))
    return o.transpose(1, 2), state


def gated_delta_rule(q, k, v, g, beta, A_log, dt_bias, allow_neg_eigval, **_):
    heads = v.shape[2]
    g = -A_log.exp() * F.softplus(g + dt_bias)
    beta = beta.sigmoid() * (2 if allow_neg_eigval else 1)
    return naive_recurrent_gated_delta_rule(repeat(unit(q), heads), repeat(unit(k), heads), v, beta, g)


def delta_product(q, k, v, g, beta, **_):
    return naive_recurrent_gated_delta_rule(unit(q), unit(k), v, beta, g)


def channel_rule(q, k, v, g, beta, A_log, dt_bias, allow_neg_eigval, lower_bound, **_):
    g = naive_kda_gate(g, A_log, dt_bias) if lower_bound is None else naive_kda_lowerbound_gate(g, A_log, dt_bias, lower_bound)
    beta = beta.sigmoid() * (2 if allow_neg_eigval else 1)
    return naive_recurrent_kda(unit(q), unit(k), v, g, beta)


def two_gates(q, k, v, g, b, w, **_):
    return naive_recurrent_gdn2(unit(q), unit(k), v, g, b, w)


def closed_loop(q, k, v, p, g, beta, **_):
    return naive_recurrent_comba(unit(q), unit(k), v, unit(p), beta, g)


def mesa(q, k, v, g, beta, lamb, **_):
    return naive_mesa_net_exact(unit(q), unit(k), v, g, lamb, beta)


delta_net.fused_recurrent_delta_rule = delta_rule
gated_deltanet.fused_recurrent_gated_delta_rule = gated_delta_rule
gated_deltaproduct.fused_recurrent_gated_delta_rule = delta_product
kda.fused_recurrent_kda = channel_rule
gdn2.fused_recurrent_gdn2 = two_gates
comba.fused_recurrent_comba = closed_loop
mesa_net.chunk_mesa_net = mesa

torch.manual_seed(1)
SIZES = {"num_heads": 2, "head_dim": 4, "expand_v": 1.5, "norm_eps": EPSILON}
SAME = "heads=2,head_dim=4,expand_v=1.5"
# File, our architecture and options, fla's layer, what in_proj is made of in order.
Q, K, V = "q_proj", "k_proj", "v_proj"
RULE = [Q, K, V, "b_proj", "a_proj", "g_proj"]
CHANNEL = [Q, K, V, "b_proj", "f_proj.0", "g_proj.0"]
MODELS = [
    ("deltanet", "deltanet:heads=2", delta_net.DeltaNet(hidden_size=HIDDEN, num_heads=2, norm_eps=EPSILON), [Q, K, V, "b_proj"]),
    (
        "deltanet-negative",
        "deltanet:heads=2,gate=true,negative_eigenvalues=true,conv=1",
        delta_net.DeltaNet(hidden_size=HIDDEN, num_heads=2, norm_eps=EPSILON, use_gate=True, allow_neg_eigval=True, use_short_conv=False),
        [Q, K, V, "b_proj", "g_proj"],
    ),
    ("gated-deltanet", f"gated-deltanet:{SAME},value_heads=4", gated_deltanet.GatedDeltaNet(HIDDEN, num_v_heads=4, **SIZES), RULE),
    (
        "gated-deltanet-negative",
        f"gated-deltanet:{SAME},negative_eigenvalues=true,gate=false,conv_bias=true",
        gated_deltanet.GatedDeltaNet(HIDDEN, allow_neg_eigval=True, use_gate=False, conv_bias=True, **SIZES),
        RULE[:-1],
    ),
    ("delta-product", f"delta-product:{SAME},householders=3", gated_deltaproduct.GatedDeltaProduct(HIDDEN, num_householder=3, **SIZES), RULE),
    ("kda", f"kda:{SAME},value_heads=4", kda.KimiDeltaAttention(HIDDEN, num_v_heads=4, **SIZES), CHANNEL),
    (
        "kda-bound",
        f"kda:{SAME},negative_eigenvalues=true,decay_bound=-5",
        kda.KimiDeltaAttention(HIDDEN, allow_neg_eigval=True, safe_gate=True, lower_bound=-5.0, **SIZES),
        CHANNEL,
    ),
    ("gdn-2", f"gdn-2:{SAME},negative_eigenvalues=true", gdn2.GatedDeltaNet2(HIDDEN, allow_neg_eigval=True, **SIZES), CHANNEL[:4] + ["w_proj"] + CHANNEL[4:]),
    ("comba", f"comba:{SAME},normalised=after,correction=0.5", comba.Comba(HIDDEN, correction_factor=0.5, **SIZES), [Q, K, V, "b_proj", "a_proj", "g_proj"]),
    ("mesa-net", "mesa-net:heads=2,head_dim=4", mesa_net.MesaNet(HIDDEN, num_heads=2, head_dim=4, norm_eps=EPSILON), [Q, K, V, "a_proj", "b_proj"]),
]
# Ours, fla's.
OTHERS = {
    "out_proj.weight": "o_proj.weight",
    "norm.weight": "o_norm.weight",
    "decay_proj.weight": "f_proj.1.weight",
    "gate_proj.weight": "g_proj.1.weight",
    "gate_proj.bias": "g_proj.1.bias",
    "A_log": "A_log",
    "dt_bias": "dt_bias",
    "decay": "decay",
    "D": "D",
    "lambda": "lambda_params",
}


def ours(layer, parts):
    """fla's parameters under our names, and that none is left over."""
    theirs = dict(layer.named_parameters())
    found = {"in_proj.weight": torch.cat([theirs.pop(f"{part}.weight") for part in parts])}
    if f"{parts[-1]}.bias" in theirs:
        found["bias"] = torch.cat([theirs.pop(f"{part}.bias") for part in parts if f"{part}.bias" in theirs])
    for kind in ("weight", "bias"):
        each = [theirs.pop(name) for name in (f"{x}_conv1d.{kind}" for x in "qkv") if name in theirs]
        if each:
            found[f"conv1d.{kind}"] = torch.cat(each)
    found |= {name: theirs.pop(other) for name, other in OTHERS.items() if other in theirs}
    assert not theirs, f"parameters of fla's without a place: {sorted(theirs)}"
    return found


def rounded(tensor):
    return [round(value, 3) for value in tensor.flatten().tolist()]


@torch.no_grad()
def write(file, architecture, layer, parts):
    generator = torch.Generator().manual_seed(len(file))
    layer = layer.double().eval()
    for name, parameter in layer.named_parameters():
        parameter += 0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.double)
        parameter.copy_((parameter * 1000).round() / 1000)
    embedding, head = ((torch.randn(VOCAB, HIDDEN, generator=generator, dtype=torch.double) * 1000).round() / 1000 for _ in "eh")
    tokens = torch.randint(VOCAB, (LENGTH,), generator=generator)
    x = embedding[tokens][None]
    scaled = lambda x: x / torch.sqrt((x * x).mean(-1, keepdim=True) + EPSILON)
    logits = scaled(x + layer(scaled(x))[0].double()) @ head.T
    parameters = {f"layers.0.mixer.{name}": rounded(value) for name, value in ours(layer, parts).items()}
    parameters |= {"embedding.weight": rounded(embedding), "head.weight": rounded(head)}
    content = {
        "source": f"flash-linear-attention {fla.__version__}, {type(layer).__name__}",
        "architecture": architecture,
        "d_model": HIDDEN,
        "vocab": VOCAB,
        "tokens": tokens.tolist(),
        "parameters": parameters,
        "logits": [round(value, 6) for value in logits.flatten().tolist()],
    }
    (FOLDER / f"{file}.json").write_text(json.dumps(content, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    wanted = sys.argv[1:]
    for model in MODELS:
        if not wanted or model[0] in wanted:
            write(*model)
