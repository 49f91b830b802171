"""Kernels by themselves: Longhaul's beside mamba_ssm's, fla's and PyTorch's, and beside the speed of a copy.

Usage: kernels.py [--device cuda:0] [--csv FILE] [--operations copy,scan,ssd,attention] [--lengths 2048,8192,32768,65536]
                  [--batch 8] [--d-inner 2048] [--mebibytes 4096] [--seconds 0.5]

`kernel_speed` (an example of plugins/hybrid) times ours as recorded passes; peers run as autograd calls them, inputs with
gradients, on the same shapes. `ratio` is the peer's time over ours. `share_of_copy` is the rate at which a pass moves the bytes
that it cannot avoid (inputs, outputs and their gradients once, float32), over the measured rate of a copy.

  copy       device to device, ours and PyTorch's
  scan       Mamba's selective scan, N 16, float32; peers: mamba_ssm, and the scan by doubling in PyTorch to 8,192 positions
  ssd        Mamba-2's operation, N 128, head width 64; ours with tf32 products, peers float32: mamba_ssm, fla
  attention  causal softmax, head widths 64 and 128; ours with bf16 products, PyTorch's fused attention in bf16: as it chooses
             among its backends, and each of two of these, which shows what it chose

`error` is the largest difference of our values from float32 products, on up to 2 sequences of 4096 positions: more than
`tolerance` and the shape is `different`. `usual_error` is what 9,999 of 10,000 values do not exceed.

Exits with 1 where ours fails or differs; a peer that is not here or fails is a row that says so."""

import argparse
import contextlib
import functools
import gc
import json
import os
import subprocess

import common
from asked import LENGTHS, OPERATIONS, head_dim

COLUMNS = (
    "operation,pass,batch,length,d_inner,state,head_dim,products,peer,seconds,peer_seconds,ratio,asked,"
    "bytes,bytes_per_second,copy_bytes_per_second,share_of_copy,error,usual_error,tolerance,status,reason"
).split(",")

# What kernel_speed says of our values beside those of float32 products.
ERRORS = ["error", "usual_error", "tolerance"]


def ours(arguments, products, timeout):
    """The lines of kernel_speed as dictionaries."""
    place = [os.environ.get("KERNEL_SPEED", ""), common.HERE / "kernel_speed", common.HERE.parent.parent / "target/release/examples/kernel_speed"]
    program = next((str(path) for path in place if path and os.access(path, os.X_OK)), None)
    if program is None:
        raise RuntimeError("no kernel_speed; build it with cargo build --release --workspace --example kernel_speed")
    environment = dict(os.environ, LONGHAUL_PRODUCTS=products)
    ran = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, timeout=timeout, env=environment)
    if ran.returncode != 0:
        raise RuntimeError(ran.stderr.strip()[-300:] or f"kernel_speed ended with {ran.returncode}")
    return [json.loads(line) for line in ran.stdout.splitlines()]


def of_scan(sizes, device, transposed):
    """What the scan is of: u, delta, a, b, c, d; where `transposed` the tokens of u, delta, b and c come last."""
    import torch

    batch, length, inner, state, _ = sizes

    def draw(width):
        shape = (batch, width, length) if transposed else (batch, length, width)
        return torch.rand(shape, device=device, requires_grad=True)

    a = -torch.arange(1.0, state + 1, device=device).repeat(inner, 1)
    return draw(inner), draw(inner), a.requires_grad_(), draw(state), draw(state), torch.ones(inner, device=device, requires_grad=True)


def scan_of_mamba_ssm(sizes, device):
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

    u, delta, a, b, c, d = inputs = of_scan(sizes, device, True)
    return (lambda: selective_scan_fn(u, delta, a, b, c, d, delta_softplus=True)), list(inputs)


def scan_of_torch(sizes, device):
    import models
    import torch

    u, delta, a, b, c, d = inputs = of_scan(sizes, device, False)
    return (lambda: models.selective_scan(u, torch.nn.functional.softplus(delta), a, b, c, d)), list(inputs)


def of_ssd(sizes, device):
    import torch

    batch, length, inner, state, width = sizes
    x = torch.rand(batch, length, inner // width, width, device=device, requires_grad=True)
    dt = (0.1 * torch.rand(batch, length, inner // width, device=device)).requires_grad_()
    b, c = (torch.rand(batch, length, 1, state, device=device, requires_grad=True) for _ in range(2))
    a = torch.full((inner // width,), -2.7, device=device, requires_grad=True)
    d = torch.ones(inner // width, device=device, requires_grad=True)
    return x, dt, a, b, c, d


def ssd_of_mamba_ssm(sizes, device):
    from mamba_ssm.ops.triton.ssd_combined import mamba_chunk_scan_combined

    x, dt, a, b, c, d = of_ssd(sizes, device)
    return (lambda: mamba_chunk_scan_combined(x, dt, a, b, c, chunk_size=256, D=d)), [x, dt, a, b, c, d]


def ssd_of_fla(sizes, device):
    from fla.ops.simple_gla import chunk_simple_gla

    x, dt, a, b, c, d = of_ssd(sizes, device)
    heads = x.shape[2]

    def once():
        keys, queries = (z.expand(-1, -1, heads, -1) for z in (b, c))
        return chunk_simple_gla(queries, keys, x * dt.unsqueeze(-1), g=dt * a, scale=1.0)[0] + d[:, None] * x

    return once, [x, dt, a, b, c, d]


def attention_of_torch(sizes, device, backend=None):
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    batch, length, inner, _, width = sizes
    shape = (batch, inner // width, length, width)
    q, k, v = (torch.rand(shape, device=device, dtype=torch.bfloat16, requires_grad=True) for _ in range(3))

    def once():
        with sdpa_kernel(getattr(SDPBackend, backend)) if backend else contextlib.nullcontext():
            return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)

    return once, [q, k, v]


PEERS = {
    ("scan", "mamba_ssm"): scan_of_mamba_ssm,
    ("scan", "torch"): scan_of_torch,
    ("ssd", "mamba_ssm"): ssd_of_mamba_ssm,
    ("ssd", "fla"): ssd_of_fla,
    ("attention", "torch"): attention_of_torch,
    ("attention", "torch, flash"): functools.partial(attention_of_torch, backend="FLASH_ATTENTION"),
    ("attention", "torch, cuDNN"): functools.partial(attention_of_torch, backend="CUDNN_ATTENTION"),
}


def release():
    """Gives memory that PyTorch keeps back to the card, on which other processes run next."""
    gc.collect()
    try:
        import torch

        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()
    except Exception:  # No PyTorch, or a card that a peer's kernel has left unusable.
        pass


def theirs(operation, peer, sizes, args):
    """Seconds of a peer's forward and backward pass."""
    import torch

    common.precision("tf32")
    device = args.device
    synchronize = common.synchronizer(device)
    forward, inputs = PEERS[operation, peer](sizes, device)
    y = forward()
    slope = torch.rand_like(y)
    seconds = {"forward": common.seconds_of(forward, args.seconds, synchronize)}

    def backward():
        return torch.autograd.grad(y, inputs, slope, retain_graph=True)

    seconds["backward"] = common.seconds_of(backward, args.seconds, synchronize)
    return seconds


def copies(args, table):
    """Rows of copies, and the fastest of them in bytes a second."""
    mebibytes, rates = args.mebibytes, []
    try:
        line = ours(["copy", "--device", args.ours, "--length", mebibytes, "--seconds", args.seconds], "float32", args.timeout)[0]
        rates.append(line["bytes_per_second"])
        table.row(**{"operation": "copy", "pass": "copy", "bytes_per_second": rates[-1], "status": "ok"})
    except (RuntimeError, subprocess.TimeoutExpired) as error:
        table.row(**{"operation": "copy", "pass": "copy", "status": "failed", "reason": common.reason(error)})
    row = {"operation": "copy", "pass": "copy", "peer": "torch"}
    try:
        import torch

        a, b = (torch.zeros(mebibytes << 18, device=args.device) for _ in range(2))
        seconds = common.seconds_of(lambda: b.copy_(a), args.seconds, common.synchronizer(args.device))
        rates.append(round(2 * a.numel() * 4 / seconds))
        table.row(**row, bytes_per_second=rates[-1], status="ok")
    except Exception as error:
        table.row(**row, status="failed", reason=common.reason(error))
    a = b = None
    release()
    if rates:
        print(f"a copy reads and writes {max(rates) / 1e9:,.0f} GB/s", flush=True)
    return max(rates, default=None)


def compare(operation, width, length, copy, args, table):
    """Rows of one shape; 1 where ours fails."""
    state, _, products, _, peers = OPERATIONS[operation]
    what = f"{operation}, T {length}" + (f", head width {width}" if operation != "scan" else "")
    shape = dict(operation=operation, batch=args.batch, length=length, d_inner=args.d_inner, state=state)
    shape |= dict(head_dim=head_dim(operation, width), products=products)
    sizes = ["--batch", args.batch, "--length", length, "--d-inner", args.d_inner, "--state", state, "--head-dim", width]
    try:
        lines = ours([operation, "--device", args.ours, "--seconds", args.seconds, *sizes], products, args.timeout)
    except (RuntimeError, subprocess.TimeoutExpired) as error:
        print(f"{what}: {common.reason(error)}", flush=True)
        table.row(**shape, status="failed", reason=common.reason(error))
        return 1
    wrong = 0
    for line in lines:
        # Also where one of them is no number.
        if not line["error"] <= line["tolerance"]:
            why = f"values differ from float32 products' by {line['error']:.1e}, more than {line['tolerance']:g}"
            print(f"{what}, {line['pass']}: {why}", flush=True)
            row = dict(shape, seconds=line["seconds"], **{name: line[name] for name in ERRORS})
            table.row(**row, **{"pass": line["pass"], "status": "different", "reason": why})
            wrong = 1
    if wrong:
        return wrong
    for peer, (asked, longest) in peers.items():
        if length > longest:
            continue
        try:
            with common.time_limit(args.timeout):
                measured = theirs(operation, peer, (args.batch, length, args.d_inner, state, width), args)
            status, why = "ok", ""
        except Exception as error:
            measured, status, why = {}, "no-peer", common.reason(error)
            print(f"{what}, {peer}: {why}", flush=True)
        release()
        for line in lines:
            seconds, bytes_moved = line["seconds"], line["bytes"]
            row = dict(shape, peer=peer, seconds=seconds, bytes=bytes_moved, bytes_per_second=round(bytes_moved / seconds))
            row |= {"pass": line["pass"], "asked": asked, **{name: line[name] for name in ERRORS}}
            row |= {"status": status, "reason": why}
            text = f"{what}, {line['pass']}: {1e3 * seconds:.3f} ms"
            if copy:
                row |= dict(copy_bytes_per_second=copy, share_of_copy=round(bytes_moved / seconds / copy, 3))
                text += f", {100 * row['share_of_copy']:.0f} % of a copy's rate"
            if measured:
                peer_seconds = measured[line["pass"]]
                row |= dict(peer_seconds=peer_seconds, ratio=round(peer_seconds / seconds, 3))
                text += f", {row['ratio']:.2f}x {peer}"
            print(text, flush=True)
            table.row(**row)
    return 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--csv", default="kernels.csv")
    parser.add_argument("--operations", type=lambda text: text.split(","), default=["copy", *OPERATIONS])
    parser.add_argument("--lengths", type=lambda text: [int(n) for n in text.split(",")], default=LENGTHS)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--d-inner", type=int, default=2048)
    parser.add_argument("--mebibytes", type=int, default=4096, help="size of the copy")
    parser.add_argument("--seconds", type=float, default=0.5, help="least seconds of a timing")
    parser.add_argument("--timeout", type=float, default=120.0, help="most seconds of a shape")
    args = parser.parse_args()
    for word in set(args.operations) - {"copy", *OPERATIONS}:
        parser.error(f"`{word}` is unknown; known are copy, {', '.join(OPERATIONS)}")
    # Without a card the same kernels run on the emulated one, which shows that this script works.
    args.ours = "emulated" if args.device == "cpu" else args.device
    unlike = ""
    try:
        unlike = common.precision_error("tf32", args.device, compiled=False)
    except Exception as error:  # No PyTorch, or none for this card: rows of peers will say so.
        print(f"no peers: {common.reason(error)}", flush=True)
    if unlike:
        raise SystemExit(unlike)
    release()
    table = common.Table(args.csv, COLUMNS, args.device)
    copy = copies(args, table) if "copy" in args.operations else None
    wrong = 0
    for operation in args.operations:
        for width in OPERATIONS[operation][1] if operation != "copy" else ():
            for length in args.lengths:
                if length <= OPERATIONS[operation][3]:
                    wrong += compare(operation, width, length, copy, args, table)
    print(f"{args.csv}: {wrong} shapes failed" if wrong else args.csv)
    raise SystemExit(1 if wrong else 0)


if __name__ == "__main__":
    main()
