"""Makes fixtures for the mixers of plugins/xlstm from the layers of NX-AI's own package, in float64 on a CPU.

Usage: xlstm_layers.py      needs: pip install torch xlstm

plugins/xlstm/tests/foreign/NAME.json is what `check_foreign` of the kit reads. xLSTM-7B's block is held by
tests/checkpoints instead."""

import json

import torch
from recurrences import ROOT, case, made
from torch.func import functional_call
from xlstm.blocks.mlstm.layer import mLSTMLayer, mLSTMLayerConfig
from xlstm.blocks.slstm.layer import sLSTMLayer, sLSTMLayerConfig

# Heads of more than two values: LayerNorm leaves nothing but a sign of two, and their gradients are rounding.
WIDTH, HEADS, INNER, TAPS, BLOCK = 8, 2, 16, 3, 4


def mlstm(p, x, layer, layers, options):
    """The pre-up block (parallel form)."""
    get = lambda name: p[f"{layer}.{name}"]
    # The inner width is rounded to this multiple there.
    config = mLSTMLayerConfig(embedding_dim=WIDTH, num_heads=HEADS, context_length=32, conv1d_kernel_size=TAPS, qkv_proj_blocksize=BLOCK, round_proj_up_to_multiple_of=1)
    theirs = {
        "proj_up.weight": get("proj_up.weight"),
        "conv1d.conv.weight": get("conv1d.weight")[:, None],
        "conv1d.conv.bias": get("conv1d.bias"),
        "mlstm_cell.igate.weight": get("gates.weight")[:HEADS],
        "mlstm_cell.igate.bias": get("gates.bias")[:HEADS],
        "mlstm_cell.fgate.weight": get("gates.weight")[HEADS:],
        "mlstm_cell.fgate.bias": get("gates.bias")[HEADS:],
        "mlstm_cell.outnorm.weight": get("norm.weight") - 1,
        "learnable_skip": get("skip"),
        "proj_down.weight": get("proj_down.weight"),
    }
    for part in "qkv":
        theirs[f"{part}_proj.weight"] = get(f"{part}_proj.weight").transpose(1, 2)
    module = mLSTMLayer(config)
    assert set(theirs) == {name for name, _ in module.named_parameters()}
    return functional_call(module, theirs, x)


def slstm(p, x, layer, layers, options):
    """The sLSTM layer on the package's plain backend."""
    get = lambda name: p[f"{layer}.{name}"]
    taps = int(options.get("conv", TAPS))
    config = sLSTMLayerConfig(embedding_dim=WIDTH, num_heads=HEADS, conv1d_kernel_size=taps, backend="vanilla", dtype="float32")
    head = WIDTH // HEADS
    theirs = {
        # The package calls these two by each other's names.
        "fgate.weight": get("igate.weight").transpose(1, 2),
        "igate.weight": get("fgate.weight").transpose(1, 2),
        "zgate.weight": get("zgate.weight").transpose(1, 2),
        "ogate.weight": get("ogate.weight").transpose(1, 2),
        "slstm_cell._recurrent_kernel_": get("weight_hh").view(4, HEADS, head, head).transpose(0, 1).reshape(HEADS, 4 * head, head),
        "slstm_cell._bias_": get("bias"),
        "group_norm.weight": get("norm.weight") - 1,
    }
    if taps:
        theirs |= {"conv1d.conv.weight": get("conv1d.weight")[:, None], "conv1d.conv.bias": get("conv1d.bias")}
    module = sLSTMLayer(config)
    assert set(theirs) == {name for name, _ in module.named_parameters()}
    return functional_call(module, theirs, x)


MATRIX = {
    "proj_up.weight": (2 * INNER, WIDTH),
    "conv1d.weight": (INNER, TAPS),
    "conv1d.bias": (INNER,),
    **{f"{part}_proj.weight": (INNER // BLOCK, BLOCK, BLOCK) for part in "qkv"},
    "gates.weight": (2 * HEADS, 3 * INNER),
    "gates.bias": (2 * HEADS,),
    "norm.weight": (INNER,),
    "skip": (INNER,),
    "proj_down.weight": (WIDTH, INNER),
}
HEAD = WIDTH // HEADS
SCALAR = {
    **{f"{gate}gate.weight": (HEADS, HEAD, HEAD) for gate in "ifzo"},
    "weight_hh": (4 * WIDTH, HEAD),
    "bias": (4 * WIDTH,),
    "norm.weight": (WIDTH,),
}
CONVOLUTION = {"conv1d.weight": (WIDTH, TAPS), "conv1d.bias": (WIDTH,)}
HEADS_OPTION = {"heads": str(HEADS)}
FIXTURES = {
    "mlstm": [case(mlstm, {"block": "pre-up", "conv": str(TAPS), "head_norm_epsilon": "0.00001"} | HEADS_OPTION, 2, WIDTH, MATRIX)],
    "slstm": [
        case(slstm, {"conv": str(TAPS)} | HEADS_OPTION, 2, WIDTH, SCALAR | CONVOLUTION),
        case(slstm, {"conv": "0"} | HEADS_OPTION, 1, WIDTH, SCALAR),
    ],
}


def main():
    for name, cases in FIXTURES.items():
        torch.manual_seed(sum(map(ord, name)))
        path = ROOT / "xlstm" / "tests" / "foreign" / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps([made(**case) for case in cases], separators=(",", ":")) + "\n")
        print(path.relative_to(ROOT.parent), path.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
