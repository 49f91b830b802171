"""Makes layers of the family `linear-attention` with what other software gives for them: fla's own layers, in which its
kernels for a GPU are replaced by its naive functions and its fused norms by the formulas in their documentation, and
transformers' MiniMax attention as it is.

Usage: linear_attention.py OUT
needs: pip install torch transformers einops; pip install --no-deps flash-linear-attention==0.6.0 fla-core==0.6.0

OUT/NAME.json has the architecture, its options, sizes, the input `x` [B, T, D], parameters under our names and the output
`y` [B, T, D]. Values are drawn with three decimals and computed with in float32, as fla's naive functions do."""

import importlib
import json
import pathlib
import sys

import torch
import torch.nn.functional as F
from torch import nn

from fla.modules.rotary.ops import rotary_embedding_ref
from fla.ops.gla.naive import naive_recurrent_gla
from fla.ops.gsa.naive import naive_recurrent_gsa
from fla.ops.linear_attn.naive import naive_recurrent_linear_attn
from fla.ops.retention.naive import naive_retention
from fla.ops.simple_gla.naive import naive_recurrent_simple_gla

B, T, D = 2, 11, 8


class Norm(nn.Module):
    """RMSNorm of the last dimension, as fla calls its own."""

    def __init__(self, hidden_size, elementwise_affine=True, eps=1e-5, **_):
        super().__init__()
        self.weight, self.bias, self.eps = nn.Parameter(torch.ones(hidden_size)), None, eps

    def forward(self, x, gate=None):
        y = x / torch.sqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * self.weight
        return y if gate is None else y * F.silu(gate)


class Rotary(nn.Module):
    """Halves of a head as pairs."""

    def __init__(self, dim, base=10000.0, **_):
        super().__init__()
        self.frequencies = base ** (-torch.arange(0, dim, 2) / dim)

    def forward(self, q, k, **_):
        angles = torch.arange(q.shape[1])[:, None] * self.frequencies
        return [rotary_embedding_ref(x, angles.cos(), angles.sin()) for x in (q, k)]


def norm_and_linear(x, norm_weight, norm_bias, weight, bias, eps=1e-5, **_):
    return F.linear(x / torch.sqrt(x.pow(2).mean(-1, keepdim=True) + eps) * norm_weight, weight, bias)


def gla(q, k, v, gk=None, g=None, **_):
    return naive_recurrent_gla(q, k, v, gk if g is None else g)


def gsa(q, k, v, s, g, scale, **_):
    return naive_recurrent_gsa(q, k, v, s, g, scale=scale)


def retention(q, k, v, **_):
    return naive_retention(*(x.transpose(1, 2) for x in (q, k, v))).transpose(1, 2), None


def linear(q, k, v, normalize, scale=None, **_):
    return naive_recurrent_linear_attn(q, k, v, scale=scale, normalize=normalize)


REPLACED = dict(RMSNorm=Norm, FusedRMSNormGated=Norm, RotaryEmbedding=Rotary, rms_norm_linear=norm_and_linear, swish=F.silu,
                elu_p1=lambda x: F.elu(x) + 1, fused_recurrent_gla=gla, chunk_gla=gla, fused_recurrent_gsa=gsa, chunk_gsa=gsa,
                fused_recurrent_retention=retention, chunk_retention=retention, fused_recurrent_linear_attn=linear,
                chunk_linear_attn=linear)


def layer(module, name, **options):
    """A layer of fla's with what is replaced."""
    module = importlib.import_module(f"fla.layers.{module}")
    for old, new in REPLACED.items():
        if hasattr(module, old):
            setattr(module, old, new)
    importlib.import_module("fla.modules.feature_map").swish = F.silu
    made = getattr(module, name)(hidden_size=D, **options)
    if hasattr(made, "gate_fn"):
        made.gate_fn = F.silu
    return made


def draw(shape, scale=1.0):
    return (torch.randn(shape) * scale * 1000).round() / 1000


def fill(made):
    """Other values for all parameters, also for those that start alike."""
    for name, parameter in made.named_parameters():
        near = 1.0 if "norm" in name else 0.0
        parameter.data = near + draw(parameter.shape, 0.3 if near or parameter.dim() == 1 else 0.8)


def write(out, name, architecture, options, made, call, rename=None, position=(0, 1), more=None):
    """`position` is the layer's number and the number of layers."""
    x = draw((B, T, D))
    with torch.no_grad():
        y = call(made, x)
    given = {key: value.flatten().tolist() for key, value in made.named_parameters()}
    given = (rename or (lambda given: given))(given) | {key: value.flatten().tolist() for key, value in (more or {}).items()}
    short = {key: [float(f"{value:.4g}") for value in values] for key, values in given.items()}
    case = dict(architecture=architecture, options=options, d_model=D, layer=position[0], layers=position[1], rows=B, length=T,
                x=[float(f"{value:.4g}") for value in x.flatten().tolist()], params=short,
                y=[float(f"{value:.7g}") for value in y.flatten().tolist()])
    (out / f"{name}.json").write_text(json.dumps(case, separators=(",", ":")) + "\n")


def first(made, x):
    return made(x)[0]


def short_names(old, new):
    return lambda given: {key.replace(old, new): value for key, value in given.items()}


def minimax(out):
    from transformers import MiniMaxConfig
    from transformers.models.minimax.modeling_minimax import MiniMaxLightningAttention
    config = MiniMaxConfig(hidden_size=D, num_attention_heads=2, head_dim=4, num_hidden_layers=3, block_size=4, hidden_act="silu")
    made = MiniMaxLightningAttention(config, 1)
    made.norm.variance_epsilon = 1e-5
    fill(made)

    def rename(given):
        # There a head's rows are those of q, of k and of v.
        rows = torch.tensor(given.pop("qkv_proj.weight")).view(2, 3, 4, D)
        given |= {f"{part}_proj.weight": rows[:, index].flatten().tolist() for index, part in enumerate("qkv")}
        given["o_proj.weight"] = given.pop("out_proj.weight")
        return given

    write(out, "lightning-minimax", "lightning", dict(heads="2"), made, lambda made, x: made(x, None, torch.ones(B, T))[0],
          rename, (1, 3))
    # fla has the recurrence alone: the same layer with its slopes.
    decay = torch.tensor([-(8 / 2 * (1 - 1 / 3)) * head for head in range(2)])

    def with_slopes(made, x):
        parts = F.silu(made.qkv_proj(x)).view(B, T, 2, 3, 4)
        q, k, v = (parts[:, :, :, index] for index in range(3))
        o, _ = naive_recurrent_simple_gla(q, k, v, decay.expand(B, T, 2), scale=1.0)
        return made.out_proj(torch.sigmoid(made.output_gate(x)) * made.norm(o.flatten(2)))

    write(out, "lightning-fla", "lightning", dict(heads="2", slopes="fla"), made, with_slopes, rename, (1, 3))


def main(out):
    torch.manual_seed(11)
    torch.set_grad_enabled(False)
    out = pathlib.Path(out)
    out.mkdir(parents=True, exist_ok=True)
    for normalise in (True, False):
        made = layer("linear_attn", "LinearAttention", num_heads=2, feature_map="elu", do_feature_map_norm=normalise)
        fill(made)
        options = dict(heads="2", normalise=str(normalise).lower(), head_norm="true")
        write(out, f"linear-attention-{'normalised' if normalise else 'sum'}", "linear-attention", options, made, first)
    made = layer("multiscale_retention", "MultiScaleRetention", num_heads=2)
    fill(made)
    write(out, "retnet", "retnet", dict(heads="2"), made, first, short_names("g_norm_swish_gate", "g_norm"))
    made = layer("gla", "GatedLinearAttention", num_heads=2, expand_k=1.0, gate_low_rank_dim=3)
    fill(made)
    write(out, "gla", "gla", dict(heads="2", expand_k="1", gate_rank="3"), made, first, short_names("g_norm_swish_gate", "g_norm"))
    # The second of three layers: its bound is made of all layers' parameters.
    made = layer("hgrn2", "HGRN2Attention", expand_ratio=4, layer_idx=1)
    fill(made)
    bounds = draw((3, D))
    shares = bounds.softmax(0).cumsum(0)
    bound = (shares - shares[0])[1]
    write(out, "hgrn2", "hgrn2", dict(head_dim="4"), made, lambda made, x: made(x, lower_bound=bound)[0], None, (1, 3),
          {"lower_bounds": bounds})
    made = layer("based", "BasedLinearAttention", num_heads=2, num_key_value_heads=2, feature_dim=3)
    fill(made)
    write(out, "based", "based", dict(heads="2", feature_dim="3"), made, lambda made, x: made.forward_reference(x))
    made = layer("gsa", "GatedSlotAttention", num_heads=2, num_slots=5, layer_idx=0)
    fill(made)
    write(out, "gsa", "gsa", dict(heads="2", slots="5"), made, first)
    for router, decay in (("sigmoid", "mamba2"), ("softmax", "gla")):
        made = layer("raven", "Raven", num_heads=2, num_slots=5, topk=2, layer_idx=0, router_score=router, fuse_norm=False,
                     decay_type={"mamba2": "Mamba2", "gla": "GLA"}[decay]).eval()
        fill(made)
        options = dict(heads="2", slots="5", routed="2", router=router, decay=decay)
        write(out, f"raven-{router}-{decay}", "raven", options, made, first)
    minimax(out)


main(sys.argv[1])
