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
anything is timed, PyTorch must multiply as asked, agree.py's comparison must hold and the parameter counts must be
equal; a row that could not be measured says why. Whatever uses PyTorch has a process of its own (`--work`), so that
what goes wrong in one leaves the others alone. A row that is `ok` in the table for the same build is not measured
again. Exits with 1 where a model is not the same or Longhaul fails."""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time

import asked
import common

LAYERS, VOCAB = 2, 512
COLUMNS = (
    "build,arch,d_model,layers,vocab,batch,length,products,peer,form,parameters,peer_parameters,loss_difference,norm_difference,"
    "tokens_per_second,peer_tokens_per_second,ratio,asked,status,reason"
).split(",")
# What names a row.
KEY = ["arch", "d_model", "layers", "vocab", "batch", "length", "products", "peer", "form"]


# What processes of their own do: a job in, a dictionary out. -----------------------------------------------------------


def recurrences_named(name):
    """The ways to compute recurrences that a job names: none for plain PyTorch's."""
    import models

    if name is None:
        return models.PLAIN
    return models.kernels()[0][name][0]


def work_peers(job):
    """The libraries that are here for each architecture, with what rows call them; and why the others are not."""
    import torch

    import models

    try:
        common.synchronizer(job["device"])
    except Exception as error:
        return {"failed": f"PyTorch {torch.__version__} cannot use {job['device']}: {common.reason(error)}"}
    found, missing = models.kernels()
    specs = {name: models.SPECS[name].longhaul for name in asked.ARCHS}
    has = {name: [[None, asked.label(name, models.PLAIN.name)]] for name in asked.ARCHS}
    for library, (recurrences, names) in found.items():
        for name in names:
            if name in has:
                has[name].append([library, asked.label(name, recurrences.name)])
    return {"specs": specs, "peers": has, "missing": missing}


def work_precision(job):
    """Whether PyTorch multiplies as asked."""
    return {"failed": common.precision_error(job["products"], job["device"], job["compiled"])}


def work_agree(job):
    """Whether a peer is the same model."""
    import agree

    ours = agree.Ours(job["arch"], job["device"])
    recurrences = recurrences_named(job["library"])
    loss, norm = agree.differences(job["arch"], ours, job["device"], recurrences)
    return {"loss": loss, "norm": norm, "same": bool(agree.same(recurrences, loss, norm))}


def work_time(job):
    """Tokens a second of a peer, or other parameters than Longhaul's."""
    import torch

    import models

    torch.manual_seed(0)
    common.precision(job["products"])
    model = models.Model(models.SPECS[job["arch"]], VOCAB, job["d_model"], LAYERS, recurrences_named(job["library"]))
    parameters = model.parameter_count()
    if parameters != job["parameters"]:
        return {"peer_parameters": parameters}
    speed = Training(model, job).speed(job["seconds"])
    return {"peer_parameters": parameters, "peer_tokens_per_second": speed}


WORK = {"peers": work_peers, "precision": work_precision, "agree": work_agree, "time": work_time}


def apart(kind, timeout, **job):
    """What a job in a process of its own gives; RuntimeError where it fails or takes too long."""
    with tempfile.TemporaryFile("w+") as said:
        command = [sys.executable, __file__, "--work", json.dumps(dict(job, kind=kind))]
        # A group of its own: torch.compile starts more processes.
        ran = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said, text=True, start_new_session=True)
        try:
            out, _ = ran.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"took more than {timeout:.0f} s") from None
        finally:
            try:
                os.killpg(ran.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            ran.wait()
        answers = [line for line in out.splitlines() if line.startswith("ANSWER ")]
        if ran.returncode == 0 and answers:
            return json.loads(answers[-1].removeprefix("ANSWER "))
        said.seek(0)
        words = [line for line in said.read().splitlines() if line.strip()] or [f"exit code {ran.returncode}"]
        raise RuntimeError(words[-1][:300])


class Training:
    """A peer's training step on one batch of random tokens, which is copied to the device at each step."""

    def __init__(self, model, job):
        import torch

        device, form = job["device"], job["form"]
        self.torch, self.form, self.device = torch, form, device
        self.synchronize = common.synchronizer(device)
        self.model = model.to(device).train()
        on_card = device != "cpu"
        shape = (job["batch"], job["length"])
        count = shape[0] * shape[1]
        tokens = torch.randint(0, VOCAB, (count,))
        targets = tokens.roll(-1)
        self.host = [part.view(shape) for part in (tokens, targets)]
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
        self.torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        return loss

    def capture(self):
        side = self.torch.cuda.Stream()
        side.wait_stream(self.torch.cuda.current_stream())
        with self.torch.cuda.stream(side):
            for _ in range(3):
                self.work()
        self.torch.cuda.current_stream().wait_stream(side)
        graph = self.torch.cuda.CUDAGraph()
        self.optimizer.zero_grad(set_to_none=True)
        with self.torch.cuda.graph(graph):
            self.result = self.work()
        return graph

    def once(self):
        for device, host in zip(self.inputs, self.host):
            device.copy_(host, non_blocking=True)
        if self.captured is not None:
            self.captured.replay()
            return
        if self.form == "compile":
            self.torch.compiler.cudagraph_mark_step_begin()
        self.result = self.work()

    def speed(self, seconds):
        """Tokens a second of timings of at least some seconds; ValueError where the loss is not finite after them."""
        for _ in range(3):
            self.once()
        seconds = common.seconds_of(self.once, seconds, self.synchronize)
        loss = self.result.item()
        if not loss < 1e4:
            raise ValueError(f"the loss became {loss}")
        return self.host[0].numel() / seconds


# What this process does. -----------------------------------------------------------------------------------------------


class Comparison:
    """All rows of an architecture."""

    def __init__(self, name, peers, spec, args, table):
        self.name, self.spec, self.args, self.table = name, spec, args, table
        self.build = common.build_of(*common.binaries())
        good = [row for row in table.rows() if (row["build"], row["status"]) == (self.build, "ok")]
        done = {tuple(row[name] for name in KEY) for row in good}
        self.sizes = dict(build=self.build, arch=name, layers=LAYERS, vocab=VOCAB, batch=args.batch, length=args.length)
        self.rows = [
            (library, dict(self.sizes, d_model=d_model, products=products, peer=label, form=form))
            for d_model in args.widths
            for products in args.products
            for library, label in peers
            for form in args.forms
        ]
        all_rows = len(self.rows)
        self.rows = [(library, row) for library, row in self.rows if tuple(str(row[name]) for name in KEY) not in done]
        self.known = all_rows - len(self.rows)
        self.agreed, self.lines = {}, {}

    def agrees(self, library, peer):
        """Differences of a peer that is the same model, or nothing; a row says why."""
        if library in self.agreed:
            return self.agreed[library]
        row = dict(self.sizes, peer=peer)
        try:
            got = apart("agree", self.args.timeout, arch=self.name, library=library, device=self.args.device)
            row |= dict(loss_difference=got["loss"], norm_difference=got["norm"])
            status, why = ("ok", "") if got["same"] else ("different", "loss or gradient norm is not Longhaul's")
        except RuntimeError as error:
            status, why = "failed", str(error)
        if status != "ok":
            print(f"{self.name}, {peer}: {status}: {why}", flush=True)
            self.table.row(**row, status=status, reason=why)
        self.agreed[library] = row if status == "ok" else None
        self.wrong += status != "ok" and (library is None or status == "different")
        return self.agreed[library]

    def ours(self, d_model, products):
        """Longhaul's line of a size, or nothing; a row says why."""
        if (d_model, products) not in self.lines:
            try:
                line = common.bench(
                    self.spec, "train", self.args.device, products, self.args.timeout, batch=self.args.batch,
                    length=self.args.length, d_model=d_model, layers=LAYERS, vocab=VOCAB, seconds=self.args.seconds,
                )  # fmt: skip
            except RuntimeError as error:
                line, self.wrong = None, self.wrong + 1
                print(f"{self.name}, D {d_model}, {products}: longhaul failed: {error}", flush=True)
                row = dict(self.sizes, d_model=d_model, products=products)
                self.table.row(**row, status="failed", reason=f"longhaul bench: {error}")
            self.lines[d_model, products] = line
        return self.lines[d_model, products]

    def time(self, library, row):
        """Measures a row, and writes it."""
        begun = time.perf_counter()
        what = f"{self.name}, D {row['d_model']}, {row['products']}, {row['peer']}, {row['form']}"
        if row["form"] == "graph" and self.args.device == "cpu":
            self.table.row(**row, status="not-run", reason="a CUDA graph needs a card")
            return
        job = {name: row[name] for name in ("arch", "d_model", "products", "form", "batch", "length", "parameters")}
        try:
            got = apart("time", self.args.peer_timeout, library=library, device=self.args.device, seconds=self.args.seconds, **job)
        except RuntimeError as error:
            print(f"{what}: {error}", flush=True)
            self.table.row(**row, status="failed", reason=str(error))
            return
        row["peer_parameters"] = got["peer_parameters"]
        if row["peer_parameters"] != row["parameters"]:
            why = f"{row['peer_parameters']} parameters against Longhaul's {row['parameters']}"
            print(f"{what}: {why}", flush=True)
            self.table.row(**row, status="different", reason=why)
            self.wrong += 1
            return
        ours, theirs = row["tokens_per_second"], got["peer_tokens_per_second"]
        spent = time.perf_counter() - begun
        print(f"{what}: {ours / theirs:.2f}x, {ours:,.0f} against {theirs:,.0f} tokens/s ({spent:.0f} s)", flush=True)
        least = asked.FORMS[row["form"]] if library is None else None
        self.table.row(**row, peer_tokens_per_second=round(theirs), ratio=round(ours / theirs, 3), asked=least, status="ok")

    def run(self):
        """Measures what is not there; how many rows are wrong."""
        self.wrong = 0
        for library, row in self.rows:
            same = self.agrees(library, row["peer"])
            line = self.ours(row["d_model"], row["products"]) if same else None
            if line is None:
                continue
            row |= dict(same, parameters=line["parameters"], tokens_per_second=line["tokens_per_second"])
            self.time(library, row)
        if self.known:
            print(f"{self.name}: {self.known} rows are known from before", flush=True)
        return self.wrong


def words(text):
    return text.split(",")


def numbers(text):
    return [int(word) for word in text.split(",")]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--csv", default="throughput.csv")
    parser.add_argument("--archs", type=words, default=asked.ARCHS)
    parser.add_argument("--widths", type=numbers, default=asked.WIDTHS)
    parser.add_argument("--products", type=words, default=asked.PRODUCTS)
    parser.add_argument("--forms", type=words, default=list(asked.FORMS))
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--seconds", type=float, default=2.0, help="least seconds of a timing")
    parser.add_argument("--timeout", type=float, default=300.0, help="most seconds of a call of longhaul")
    parser.add_argument("--peer-timeout", type=float, default=150.0, help="most seconds of a peer, compiling included")
    parser.add_argument("--work", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        try:
            answer = WORK[args.work.pop("kind")](args.work)
        except Exception as error:
            raise SystemExit(common.reason(error)) from None
        print("ANSWER", json.dumps(answer), flush=True)
        return
    for given, known in ((args.archs, asked.ARCHS), (args.forms, asked.FORMS), (args.products, asked.PRODUCTS)):
        for word in set(given) - set(known):
            parser.error(f"`{word}` is unknown; known are {', '.join(known)}")
    try:
        peers = apart("peers", args.timeout, device=args.device)
        checks = [apart("precision", args.timeout, device=args.device, products=products, compiled="compile" in args.forms) for products in args.products]
    except RuntimeError as error:
        raise SystemExit(f"PyTorch cannot be used: {error}") from None
    for answer in (peers, *checks):
        if answer.get("failed"):
            raise SystemExit(answer["failed"])
    for library, why in peers["missing"].items():
        print(f"{library} is not here: {why}")
    table = common.Table(args.csv, COLUMNS, args.device)
    wrong = sum(Comparison(name, peers["peers"][name], peers["specs"][name], args, table).run() for name in args.archs)
    print(f"{args.csv}: {wrong} rows are wrong" if wrong else args.csv)
    raise SystemExit(1 if wrong else 0)


if __name__ == "__main__":
    main()
