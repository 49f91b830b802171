"""Training small models: Longhaul beside the same models in PyTorch, tokens a second and their ratio.

Usage: throughput.py [--device cuda:0] [--csv FILE] [--archs A,B] [--widths 64,128,256] [--products tf32,float32]
                     [--forms eager,compile,graph] [--batch 64] [--length 256] [--seconds 2]

2 layers, vocabulary 512, cross entropy at every position, AdamW, gradients clipped to norm 1. A row is one model, one
way to multiply, one peer and one form:

  eager    PyTorch as it is, fused AdamW
  compile  forward and backward by torch.compile(mode="reduce-overhead"), which is CUDA graphs on a card; it leaves
           cuDNN's LSTM as it is
  graph    a whole eager step, AdamW included, captured once as a CUDA graph (on a card only)

The peer is plain PyTorch (cuDNN for the LSTM), or the same model with a library's kernel for its recurrence. Before
anything is timed, agree.py's comparison must hold and the parameter counts must be equal; a row that could not be
measured says why. Exits with 1 where a model is not the same or Longhaul fails."""

import argparse
import time

import torch

import agree
import common
import models

LAYERS, VOCAB = 2, 512
# What Longhaul is to be, times plain PyTorch.
ASKED = {"eager": 5.0, "compile": 2.0, "graph": None}
COLUMNS = (
    "arch,d_model,layers,vocab,batch,length,products,peer,form,parameters,peer_parameters,loss_difference,norm_difference,"
    "tokens_per_second,peer_tokens_per_second,ratio,asked,status,reason"
).split(",")


class Training:
    """A peer's training step on one batch of random tokens, which is copied to the device at each step."""

    def __init__(self, model, args, form):
        device, self.model, self.form = args.device, model.to(args.device).train(), form
        on_card = device != "cpu"
        count = args.batch * args.length
        tokens = torch.randint(0, VOCAB, (count,))
        targets = tokens.roll(-1)
        self.host = [part.view(args.batch, args.length) for part in (tokens, targets)]
        if on_card:
            self.host = [part.pin_memory() for part in self.host]
        self.inputs = [part.to(device) for part in self.host]
        # Warm: tables of positions are made outside what is compiled or captured.
        with torch.no_grad():
            self.model(self.inputs[0])
        options = dict(lr=1e-3, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1, fused=True)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), **options, capturable=on_card and form == "graph")
        self.loss = self.model.loss
        if form == "compile":
            torch._dynamo.reset()
            self.loss = torch.compile(self.model.loss, mode="reduce-overhead")
        self.captured = self.capture() if form == "graph" else None

    def work(self):
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.loss(*self.inputs)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        return loss

    def capture(self):
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                self.work()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        self.optimizer.zero_grad(set_to_none=True)
        with torch.cuda.graph(graph):
            self.result = self.work()
        return graph

    def once(self):
        for device, host in zip(self.inputs, self.host):
            device.copy_(host, non_blocking=True)
        if self.captured is not None:
            self.captured.replay()
            return
        if self.form == "compile":
            torch.compiler.cudagraph_mark_step_begin()
        self.result = self.work()

    def speed(self, args):
        """Tokens a second; ValueError where the loss is not finite after the timed steps."""
        synchronize = common.synchronizer(args.device)
        for _ in range(3):
            self.once()
        seconds = common.seconds_of(self.once, args.seconds, synchronize)
        loss = self.result.item()
        if not loss < 1e4:
            raise ValueError(f"the loss became {loss}")
        return args.batch * args.length / seconds


def peers(name, found):
    """The ways to compute an architecture's recurrence in PyTorch."""
    return [models.PLAIN, *(recurrences for recurrences, has in found.values() if name in has)]


def label(name, recurrences):
    return "PyTorch, cuDNN" if name == "lstm" else recurrences.name


def compare(name, args, found, table):
    """All rows of an architecture; how many are wrong."""
    spec = models.SPECS[name]
    try:
        ours = agree.Ours(name, args.device)
    except RuntimeError as error:
        print(f"{name}: longhaul failed: {error}", flush=True)
        table.row(arch=name, status="failed", reason=f"longhaul run: {error}")
        return 1
    wrong, agreed = 0, []
    for recurrences in peers(name, found):
        try:
            loss, norm = agree.differences(name, ours, args.device, recurrences)
            status = "ok" if agree.same(recurrences, loss, norm) else "different"
            why = "" if status == "ok" else "loss or gradient norm is not Longhaul's"
        except Exception as error:
            loss = norm = None
            status, why = "failed", common.reason(error)
        if status == "ok":
            agreed.append((recurrences, loss, norm))
            continue
        wrong += recurrences is models.PLAIN or status == "different"
        print(f"{name}, {recurrences.name}: {status}: {why}", flush=True)
        peer = label(name, recurrences)
        table.row(arch=name, peer=peer, loss_difference=loss, norm_difference=norm, status=status, reason=why)
    for d_model in args.widths:
        for products in args.products:
            sizes = dict(arch=name, d_model=d_model, layers=LAYERS, vocab=VOCAB, batch=args.batch, length=args.length)
            try:
                line = common.bench(
                    spec.longhaul, "train", args.device, products, args.timeout, batch=args.batch, length=args.length,
                    d_model=d_model, layers=LAYERS, vocab=VOCAB, seconds=args.seconds,
                )  # fmt: skip
            except RuntimeError as error:
                wrong += 1
                print(f"{name}, D {d_model}, {products}: longhaul failed: {error}", flush=True)
                table.row(**sizes, products=products, status="failed", reason=f"longhaul bench: {error}")
                continue
            for recurrences, loss, norm in agreed:
                for form in args.forms:
                    row = dict(sizes, products=products, peer=label(name, recurrences), form=form)
                    row |= dict(loss_difference=loss, norm_difference=norm, parameters=line["parameters"])
                    wrong += time_row(name, args, recurrences, line, row, table)
    return wrong


def time_row(name, args, recurrences, line, row, table):
    """Times one peer in one form; 1 where its parameters are not Longhaul's."""
    begun = time.perf_counter()
    torch.manual_seed(0)
    common.precision(row["products"])
    model = models.Model(models.SPECS[name], VOCAB, row["d_model"], LAYERS, recurrences)
    row |= dict(peer_parameters=model.parameter_count(), tokens_per_second=line["tokens_per_second"])
    what = f"{name}, D {row['d_model']}, {row['products']}, {row['peer']}, {row['form']}"
    if row["peer_parameters"] != row["parameters"]:
        why = f"{row['peer_parameters']} parameters against Longhaul's {row['parameters']}"
        print(f"{what}: {why}", flush=True)
        table.row(**row, status="different", reason=why)
        return 1
    if row["form"] == "graph" and args.device == "cpu":
        table.row(**row, status="not-run", reason="a CUDA graph needs a card")
        return 0
    try:
        with common.time_limit(args.peer_timeout):
            theirs = Training(model, args, row["form"]).speed(args)
    except Exception as error:
        print(f"{what}: {common.reason(error)}", flush=True)
        table.row(**row, status="failed", reason=common.reason(error))
        return 0
    ratio = row["tokens_per_second"] / theirs
    asked = ASKED[row["form"]] if recurrences is models.PLAIN else None
    spent = time.perf_counter() - begun
    print(f"{what}: {ratio:.2f}x, {row['tokens_per_second']:,.0f} against {theirs:,.0f} tokens/s ({spent:.0f} s)", flush=True)
    table.row(**row, peer_tokens_per_second=round(theirs), ratio=round(ratio, 3), asked=asked, status="ok")
    return 0


def words(text):
    return text.split(",")


def numbers(text):
    return [int(word) for word in text.split(",")]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--csv", default="throughput.csv")
    parser.add_argument("--archs", type=words, default=list(models.SPECS))
    parser.add_argument("--widths", type=numbers, default=[64, 128, 256])
    parser.add_argument("--products", type=words, default=["tf32", "float32"])
    parser.add_argument("--forms", type=words, default=list(ASKED))
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--seconds", type=float, default=2.0, help="least seconds of a timing")
    parser.add_argument("--timeout", type=float, default=300.0, help="most seconds of a call of longhaul")
    parser.add_argument("--peer-timeout", type=float, default=150.0, help="most seconds of a peer, compiling included")
    args = parser.parse_args()
    for given, known in ((args.archs, models.SPECS), (args.forms, ASKED), (args.products, ("tf32", "float32"))):
        for word in set(given) - set(known):
            parser.error(f"`{word}` is unknown; known are {', '.join(known)}")
    found, missing = models.kernels()
    for library, why in missing.items():
        print(f"{library} is not here: {why}")
    try:
        common.synchronizer(args.device)
    except Exception as error:
        raise SystemExit(f"PyTorch {torch.__version__} cannot use {args.device}: {common.reason(error)}") from None
    table = common.Table(args.csv, COLUMNS, args.device)
    wrong = sum(compare(name, args, found, table) for name in args.archs)
    print(f"{args.csv}: {wrong} rows are wrong" if wrong else args.csv)
    raise SystemExit(1 if wrong else 0)


if __name__ == "__main__":
    main()
