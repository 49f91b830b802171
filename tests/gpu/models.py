"""The models of Longhaul's plugins in plain PyTorch: the same layers, sizes and parameter names.

A model is `Model(SPECS[name], vocab, d_model, layers)`. Recurrences are a class attribute away from the kernels
of mamba_ssm and fla: `kernels()` says which of them this Python has. `load` reads what `longhaul run` saves.
Nothing here times anything."""

import dataclasses
import json
import math
import struct

import torch
import torch.nn.functional as F
from torch import nn

EPSILON = 1e-5


# Recurrences. ---------------------------------------------------------------------------------------------------------


def doubled(a, b):
    """h of h[t] = a[t] h[t-1] + b[t] along dimension 1, h[-1] = 0, in log2(T) passes over everything."""
    step = 1
    while step < b.shape[1]:
        later = b[:, step:] + a[:, step:] * b[:, :-step]
        a = torch.cat([a[:, :step], a[:, step:] * a[:, :-step]], 1)
        b = torch.cat([b[:, :step], later], 1)
        step *= 2
    return b


class LinearScan(torch.autograd.Function):
    """`doubled` with a backward pass of its own, which keeps a and h only."""

    @staticmethod
    def forward(ctx, a, b):
        h = doubled(a, b)
        ctx.save_for_backward(a, h)
        return h

    @staticmethod
    def backward(ctx, grad):
        a, h = ctx.saved_tensors
        after = torch.cat([a[:, 1:], torch.zeros_like(a[:, :1])], 1)
        total = doubled(after.flip(1), grad.flip(1)).flip(1)
        before = torch.cat([torch.zeros_like(h[:, :1]), h[:, :-1]], 1)
        return total * before, total


def selective_scan(u, delta, a, b, c, d):
    """y [B, T, C] of Mamba (arXiv 2312.00752, algorithm 2): u, delta [B, T, C] (after softplus), a [C, N] (negative),
    b, c [B, T, N], d [C]."""
    h = LinearScan.apply(torch.exp(delta.unsqueeze(-1) * a), (delta * u).unsqueeze(-1) * b.unsqueeze(2))
    return torch.einsum("btcn,btn->btc", h, c) + d * u


def ssd(x, dt, a, b, c, d, chunk=64):
    """y [B, T, H, P] of Mamba-2 by chunks (arXiv 2405.21060, listing 1): x [B, T, H, P], dt [B, T, H] (after softplus),
    a [H] (negative), b, c [B, T, N] (one group), d [H]."""
    batch, length, heads, _ = x.shape
    chunk = min(chunk, length)
    pad = -length % chunk
    steps = F.pad(dt, (0, 0, 0, pad))

    def cut(z):
        return F.pad(z, (0, 0) * (z.dim() - 2) + (0, pad)).unflatten(1, (-1, chunk))

    inputs, b, c = cut(x * dt.unsqueeze(-1)), cut(b), cut(c)
    sums = (steps * a).unflatten(1, (-1, chunk)).cumsum(2).transpose(2, 3)  # [B, chunks, H, L]
    past = torch.ones(chunk, chunk, dtype=torch.bool, device=x.device).tril()
    decays = (sums.unsqueeze(-1) - sums.unsqueeze(-2)).masked_fill(~past, -math.inf).exp()
    inside = torch.einsum("gkin,gkjn->gkij", c, b).unsqueeze(2) * decays
    y = torch.einsum("gkhij,gkjhp->gkihp", inside, inputs)
    ends = (sums[..., -1:] - sums).exp()
    states = torch.einsum("gkjn,gkhj,gkjhp->gkhpn", b, ends, inputs)
    # The state before each chunk: a linear recurrence over chunks.
    whole = sums[..., -1].exp()[..., None, None].expand_as(states)
    states = LinearScan.apply(whole, states)
    states = torch.cat([torch.zeros_like(states[:, :1]), states[:, :-1]], 1)
    y = y + torch.einsum("gkin,gkhpn,gkhi->gkihp", c, states, sums.exp())
    return y.flatten(1, 2)[:, :length] + d[:, None] * x


def wkv4(k, v, time_decay, time_first):
    """wkv [B, T, C] of RWKV-4 (arXiv 2305.13048, eq. 16), for keys whose spread over a sequence is below 80."""
    decay = torch.exp(-torch.exp(time_decay)).expand_as(k)
    k = k - k.detach().amax(1, keepdim=True)
    weight = k.exp()

    def earlier(x):
        h = LinearScan.apply(decay, x)
        return torch.cat([torch.zeros_like(h[:, :1]), h[:, :-1]], 1)

    now = torch.exp(time_first + k)
    return (earlier(weight * v) + now * v) / (earlier(weight) + now)


def gated_scan(log_a, x):
    """h[t] = exp(log_a[t]) h[t-1] + x[t], all [B, T, C]."""
    return LinearScan.apply(log_a.exp(), x)


@dataclasses.dataclass
class Recurrences:
    """Which function computes each recurrence; plain ones are above, others are of the same form."""

    name: str = "plain PyTorch"
    selective_scan: callable = staticmethod(selective_scan)
    ssd: callable = staticmethod(ssd)
    wkv4: callable = staticmethod(wkv4)
    gated_scan: callable = staticmethod(gated_scan)


PLAIN = Recurrences()


def of_mamba_ssm():
    """The kernels of mamba_ssm for mamba and mamba2."""
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn
    from mamba_ssm.ops.triton.ssd_combined import mamba_chunk_scan_combined

    def scan(u, delta, a, b, c, d):
        u, delta, b, c = (z.transpose(1, 2).contiguous() for z in (u, delta, b, c))
        return selective_scan_fn(u, delta, a, b, c, d, delta_softplus=False).transpose(1, 2)

    def chunked(x, dt, a, b, c, d):
        return mamba_chunk_scan_combined(x, dt, a, b.unsqueeze(2), c.unsqueeze(2), chunk_size=64, D=d)

    return Recurrences("mamba_ssm", selective_scan=scan, ssd=chunked)


def of_fla():
    """The kernels of flash-linear-attention for mamba2 (as gated linear attention with one decay a head), rwkv4 and
    griffin (HGRN's recurrence is the same)."""
    from fla.ops.hgrn import fused_recurrent_hgrn
    from fla.ops.rwkv4 import fused_recurrent_rwkv4
    from fla.ops.simple_gla import chunk_simple_gla

    def chunked(x, dt, a, b, c, d):
        heads = x.shape[2]
        b, c = (z.unsqueeze(2).expand(-1, -1, heads, -1) for z in (b, c))
        y, _ = chunk_simple_gla(c, b, x * dt.unsqueeze(-1), g=dt * a, scale=1.0)
        return y + d[:, None] * x

    def wkv(k, v, time_decay, time_first):
        # fla's state begins with numerator 0, denominator 0 and exponent -1e38.
        state = k.new_zeros(k.shape[0], 3, 1, k.shape[2])
        state[:, 2] = -1e38
        return fused_recurrent_rwkv4(time_decay, time_first, k, v, state)[0]

    def gated(log_a, x):
        return fused_recurrent_hgrn(x, log_a)[0]

    return Recurrences("fla", ssd=chunked, wkv4=wkv, gated_scan=gated)


# Architectures whose recurrence each library has.
LIBRARIES = {"mamba_ssm": (of_mamba_ssm, ("mamba", "mamba2")), "fla": (of_fla, ("mamba2", "rwkv4", "griffin"))}


def kernels():
    """The libraries of kernels that import here, by name; and why the others do not."""
    found, missing = {}, {}
    for name, (make, architectures) in LIBRARIES.items():
        try:
            found[name] = (make(), architectures)
        except Exception as error:  # A library may fail in any way while it looks for its card.
            missing[name] = f"{type(error).__name__}: {error}".splitlines()[0][:200]
    return found, missing


# Layers. --------------------------------------------------------------------------------------------------------------


class Rotary(nn.Module):
    """Rotates the first `dims` values of every head by position (arXiv 2104.09864), halves paired."""

    def __init__(self, dims, base=10_000.0):
        super().__init__()
        self.dims, self.base, self.tables = dims, base, {}

    def forward(self, x):
        key = (x.shape[-2], x.device)
        if key not in self.tables:
            frequencies = self.base ** (-torch.arange(0, self.dims, 2, dtype=torch.float64) / self.dims)
            angles = torch.outer(torch.arange(key[0], dtype=torch.float64), frequencies)
            self.tables[key] = tuple(z.float().to(x.device) for z in (angles.cos(), angles.sin()))
        cos, sin = self.tables[key]
        a, b, rest = x[..., : self.dims // 2], x[..., self.dims // 2 : self.dims], x[..., self.dims :]
        return torch.cat([a * cos - b * sin, b * cos + a * sin, rest], -1)


class Attention(nn.Module):
    """Rotary attention; `kv_heads` keys and values, biases in out_proj with `bias`."""

    def __init__(self, d_model, kv_heads=None, rope_share=1.0, bias=False):
        super().__init__()
        self.heads = max(d_model // 64, 1)
        self.kv_heads = kv_heads or self.heads
        self.head_dim = d_model // self.heads
        self.rotary = Rotary(int(self.head_dim * rope_share) // 2 * 2)
        self.qkv = nn.Linear(d_model, (self.heads + 2 * self.kv_heads) * self.head_dim, bias=False)
        self.out_proj = nn.Linear(d_model, d_model, bias=bias)

    def forward(self, x):
        heads = self.qkv(x).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
        q, k, v = heads.split([self.heads, self.kv_heads, self.kv_heads], 1)
        q, k = self.rotary(q), self.rotary(k)
        if self.kv_heads != self.heads:
            k, v = (z.repeat_interleave(self.heads // self.kv_heads, 1) for z in (k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out_proj(y.transpose(1, 2).flatten(2))


class ShortConvolution(nn.Module):
    """A causal convolution a channel, weight [C, taps]."""

    def __init__(self, channels, taps=4):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, taps).uniform_(-(taps**-0.5), taps**-0.5))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x):
        taps = self.weight.shape[1]
        y = F.conv1d(F.pad(x.transpose(1, 2), (taps - 1, 0)), self.weight.unsqueeze(1), self.bias, groups=len(self.bias))
        return y.transpose(1, 2)


def step_bias(count):
    step = torch.exp(math.log(1e-3) + torch.rand(count) * math.log(100.0))
    return nn.Parameter(step + torch.log(-torch.expm1(-step)))


class Mamba(nn.Module):
    def __init__(self, d_model, state=16, expand=2):
        super().__init__()
        self.inner, self.state, self.rank = expand * d_model, state, -(-d_model // 16)
        self.recurrences = PLAIN
        self.in_proj = nn.Linear(d_model, 2 * self.inner, bias=False)
        self.conv1d = ShortConvolution(self.inner)
        self.x_proj = nn.Linear(self.inner, self.rank + 2 * state, bias=False)
        self.dt_proj = nn.Linear(self.rank, self.inner)
        self.dt_proj.bias = step_bias(self.inner)
        self.A_log = nn.Parameter(torch.arange(1.0, state + 1).log().repeat(self.inner, 1))
        self.D = nn.Parameter(torch.ones(self.inner))
        self.out_proj = nn.Linear(self.inner, d_model, bias=False)

    def forward(self, x):
        u, z = self.in_proj(x).chunk(2, -1)
        u = F.silu(self.conv1d(u))
        rank, b, c = self.x_proj(u).split([self.rank, self.state, self.state], -1)
        delta = F.softplus(self.dt_proj(rank))
        y = self.recurrences.selective_scan(u, delta, -self.A_log.exp(), b, c, self.D)
        return self.out_proj(y * F.silu(z))


class Mamba2(nn.Module):
    def __init__(self, d_model, state=64, head_dim=32, expand=2):
        super().__init__()
        self.inner, self.state, self.head_dim = expand * d_model, state, head_dim
        self.recurrences = PLAIN
        heads = self.inner // head_dim
        self.in_proj = nn.Linear(d_model, 2 * self.inner + 2 * state + heads, bias=False)
        self.conv1d = ShortConvolution(self.inner + 2 * state)
        self.dt_bias = step_bias(heads)
        self.A_log = nn.Parameter(torch.log(1 + 15 * torch.rand(heads)))
        self.D = nn.Parameter(torch.ones(heads))
        self.norm = nn.RMSNorm(self.inner, EPSILON)
        self.out_proj = nn.Linear(self.inner, d_model, bias=False)

    def forward(self, x):
        z, xbc, dt = self.in_proj(x).split([self.inner, self.inner + 2 * self.state, len(self.D)], -1)
        u, b, c = F.silu(self.conv1d(xbc)).split([self.inner, self.state, self.state], -1)
        dt = F.softplus(dt + self.dt_bias)
        y = self.recurrences.ssd(u.unflatten(-1, (-1, self.head_dim)), dt, -self.A_log.exp(), b, c, self.D)
        return self.out_proj(self.norm(y.flatten(2) * F.silu(z)))


class Lstm(nn.Module):
    """torch.nn.LSTM, on a card cuDNN's."""

    def __init__(self, d_model):
        super().__init__()
        self.lstm = nn.LSTM(d_model, d_model, batch_first=True)

    def forward(self, x):
        return self.lstm(x)[0]


class BlockLinear(nn.Module):
    """A square matrix a head, weight [H, K, K] (input, output), bias [H, K]."""

    def __init__(self, width, heads):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(heads, width // heads, width // heads) * (width // heads) ** -0.5)
        self.bias = nn.Parameter(torch.zeros(heads, width // heads))

    def forward(self, x):
        heads = x.unflatten(-1, self.bias.shape)
        return (torch.einsum("bthk,hkj->bthj", heads, self.weight) + self.bias).flatten(2)


class RgLru(nn.Module):
    """The real-gated linear recurrent unit (arXiv 2402.19427, eq. 1 to 4)."""

    def __init__(self, width):
        super().__init__()
        heads = max(width // 64, 1)
        self.recurrences = PLAIN
        self.input_gate, self.recurrent_gate = BlockLinear(width, heads), BlockLinear(width, heads)
        decay = 0.9**2 + (0.999**2 - 0.9**2) * torch.rand(width)
        self.register_parameter("lambda", nn.Parameter(torch.log(torch.expm1(-0.5 * decay.log()))))

    def forward(self, x):
        log_a = -8.0 * F.softplus(getattr(self, "lambda")) * torch.sigmoid(self.recurrent_gate(x))
        gated = torch.sigmoid(self.input_gate(x)) * x
        kept = torch.sqrt(-torch.expm1(2 * log_a[:, 1:]))
        return self.recurrences.gated_scan(log_a, torch.cat([gated[:, :1], kept * gated[:, 1:]], 1))


class Recurrent(nn.Module):
    """Griffin's recurrent block."""

    def __init__(self, d_model):
        super().__init__()
        self.linear_y, self.linear_x = nn.Linear(d_model, d_model), nn.Linear(d_model, d_model)
        self.conv_1d, self.rg_lru = ShortConvolution(d_model), RgLru(d_model)
        self.linear_out = nn.Linear(d_model, d_model)

    def forward(self, x):
        h = self.rg_lru(self.conv_1d(self.linear_x(x)))
        return self.linear_out(F.gelu(self.linear_y(x), approximate="tanh") * h)


def blend(x, weight):
    """weight x[t] + (1 - weight) x[t-1]."""
    before = F.pad(x, (0, 0, 1, -1))
    return before + (x - before) * weight


class TimeMix(nn.Module):
    """RWKV-4's time mix (arXiv 2305.13048, eq. 11 to 16)."""

    def __init__(self, d_model):
        super().__init__()
        self.recurrences = PLAIN
        place = torch.linspace(0, 1, d_model)
        self.time_decay = nn.Parameter(8 * place.pow(0.7) - 5)
        self.time_first = nn.Parameter(torch.full((d_model,), math.log(0.3)))
        for name in ("key", "value", "receptance"):
            setattr(self, f"time_mix_{name}", nn.Parameter(torch.rand(d_model)))
            setattr(self, name, nn.Linear(d_model, d_model, bias=False))
        self.output = nn.Linear(d_model, d_model, bias=False)

    def forward(self, x):
        k = self.key(blend(x, self.time_mix_key))
        v = self.value(blend(x, self.time_mix_value))
        r = self.receptance(blend(x, self.time_mix_receptance))
        return self.output(torch.sigmoid(r) * self.recurrences.wkv4(k, v, self.time_decay, self.time_first))


class ChannelMix(nn.Module):
    """RWKV-4's channel mix (arXiv 2305.13048, eq. 17 and 18)."""

    def __init__(self, d_model):
        super().__init__()
        self.time_mix_key, self.time_mix_receptance = (nn.Parameter(torch.rand(d_model)) for _ in range(2))
        self.key = nn.Linear(d_model, 4 * d_model, bias=False)
        self.value = nn.Linear(4 * d_model, d_model, bias=False)
        self.receptance = nn.Linear(d_model, d_model, bias=False)

    def forward(self, x):
        value = self.value(F.relu(self.key(blend(x, self.time_mix_key))).square())
        return torch.sigmoid(self.receptance(blend(x, self.time_mix_receptance))) * value


class GatedMlp(nn.Module):
    """SwiGLU, or GeGLU with `gelu`."""

    def __init__(self, d_model, gelu=False):
        super().__init__()
        self.gelu = gelu
        self.gate, self.up = (nn.Linear(d_model, 4 * d_model, bias=False) for _ in range(2))
        self.down = nn.Linear(4 * d_model, d_model, bias=False)

    def forward(self, x):
        gate = self.gate(x)
        gate = F.gelu(gate, approximate="tanh") if self.gelu else F.silu(gate)
        return self.down(gate * self.up(x))


class Block(nn.Module):
    """A pre-norm residual block."""

    def __init__(self, d_model, mixer, mlp):
        super().__init__()
        self.norm1, self.mixer = nn.RMSNorm(d_model, EPSILON), mixer
        if mlp is not None:
            self.norm2, self.mlp = nn.RMSNorm(d_model, EPSILON), mlp

    def forward(self, x):
        x = x + self.mixer(self.norm1(x))
        return x + self.mlp(self.norm2(x)) if hasattr(self, "mlp") else x


@dataclasses.dataclass
class Spec:
    """An architecture: what Longhaul calls it, and how its layers are made here."""

    longhaul: str
    mixer: callable
    mlp: callable = None
    norm_embedding: bool = False


def griffin_mixer(d_model, layer):
    return Attention(d_model, kv_heads=1, rope_share=0.5, bias=True) if layer % 2 else Recurrent(d_model)


SPECS = {
    "transformer": Spec("transformer", lambda d, _: Attention(d), GatedMlp),
    "mamba2": Spec("mamba2", lambda d, _: Mamba2(d)),
    "mamba": Spec("mamba", lambda d, _: Mamba(d)),
    "lstm": Spec("lstm", lambda d, _: Lstm(d)),
    "rwkv4": Spec("rwkv4", lambda d, _: TimeMix(d), ChannelMix, norm_embedding=True),
    "griffin": Spec("griffin:pattern=recurrent+attention", griffin_mixer, lambda d: GatedMlp(d, gelu=True)),
}


class Model(nn.Module):
    """Embedding, blocks, norm and head: tokens [B, T] to logits [B, T, V]."""

    def __init__(self, spec, vocab, d_model, layers, recurrences=PLAIN):
        super().__init__()
        self.embedding = nn.Embedding(vocab, d_model)
        nn.init.normal_(self.embedding.weight, std=d_model**-0.5)
        if spec.norm_embedding:
            self.pre_ln = nn.LayerNorm(d_model, EPSILON)
        blocks = [Block(d_model, spec.mixer(d_model, i), spec.mlp and spec.mlp(d_model)) for i in range(layers)]
        self.layers = nn.ModuleList(blocks)
        self.norm = nn.RMSNorm(d_model, EPSILON)
        self.head = nn.Linear(d_model, vocab, bias=False)
        for module in self.modules():
            if hasattr(module, "recurrences"):
                module.recurrences = recurrences

    def forward(self, tokens):
        x = self.embedding(tokens)
        if hasattr(self, "pre_ln"):
            x = self.pre_ln(x)
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x))

    def loss(self, tokens, targets):
        """Mean cross entropy over targets that are not negative."""
        return F.cross_entropy(self(tokens).flatten(0, 1), targets.flatten(), ignore_index=-1)

    def parameter_count(self):
        return sum(parameter.numel() for parameter in self.parameters())


# Files. ---------------------------------------------------------------------------------------------------------------


DTYPES = {"F32": torch.float32, "I32": torch.int32}


def read_safetensors(path):
    """Tensors of a file by name: float32, or int32."""
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        data = file.read()
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        if entry["dtype"] not in DTYPES:
            raise ValueError(f"{path}: tensor {name} is {entry['dtype']}; only {' and '.join(DTYPES)} are read here")
        begin, end = entry["data_offsets"]
        tensors[name] = torch.frombuffer(bytearray(data[begin:end]), dtype=DTYPES[entry["dtype"]]).reshape(entry["shape"])
    return tensors


def load(model, tensors):
    """Puts Longhaul's parameters into a model. Every name and shape must be there on both sides."""
    renamed = {}
    for name, tensor in tensors.items():
        prefix, _, last = name.rpartition(".")
        if prefix.endswith("mixer") and last.split("_")[-1] in ("ih", "hh"):
            name = f"{prefix}.lstm.{last}_l0"
        renamed[name] = tensor
    model.load_state_dict(renamed, strict=True)
