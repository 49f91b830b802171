"""Whether PyTorch learns what Longhaul learns: from the same parameters, on the same batches, by the same rule, the same
training loss at every step that Longhaul records.

Usage: learning.py [--only NAME]... [--task NAME]... [--first STEPS] [--threads N] [--golden]

The models are ../gpu/models.py, the settings suite.toml. Longhaul trains by `longhaul run`; its initial parameters are
those after one step at a learning rate of 1e-30, and its batches come from `cargo run --example batches`. PyTorch trains
twice, in float32 and in float64. Where these two part, rounding decides and nothing can be compared: the comparison
ends there, and before it Longhaul must be within LIMIT of float64. Exits with 1 where it is not.

--golden writes golden.csv: losses of float64 on batches by a formula, which a test of Longhaul is held to."""

import argparse
import copy
import csv
import math
import pathlib
import sys
import tempfile
import tomllib

import torch

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "gpu"))
import common  # noqa: E402
import models  # noqa: E402

# The largest relative difference of Longhaul's loss from float64's.
LIMIT = 1e-5
# Where float32's is larger than this, rounding has begun to decide.
PARTED = 2e-6
# Fewest steps that must be comparable: more than the warm-up's first half.
LEAST_STEPS = 40
# Of `TrainConfig::default()` in plugin-api/src/data.rs; the rest of the optimiser is in suite.toml.
BETAS, EPSILON, FINAL_FRACTION = (0.9, 0.95), 1e-8, 0.1
CLIP_NORM = 1.0
# Parameters of two dimensions that have no weight decay.
NOT_DECAYED = ("A_log", "conv1d.weight")
SEED = 0


class Training:
    """A task's settings."""

    def __init__(self, suite, task, steps=None):
        general = suite["training"]
        self.task, self.steps = task["name"], steps or task["steps"]
        self.length = task["train_length"]
        self.length_min = task.get("train_length_min", self.length)
        (self.rate,) = task["learning_rates"]
        self.rows, self.weight_decay = general["batch"], general["weight_decay"]
        self.warmup = min(general["warmup_steps"], self.steps)

    def learning_rate(self, step):
        """Up along a line, then down along half a cosine."""
        if step < self.warmup:
            return self.rate * (step + 1) / self.warmup
        progress = min((step - self.warmup) / max(self.steps - self.warmup, 1), 1.0)
        return self.rate * (FINAL_FRACTION + (1 - FINAL_FRACTION) * 0.5 * (1 + math.cos(math.pi * progress)))


def run(name, training, folder, *more):
    """Longhaul's records and parameters of one training."""
    arguments = ["run", HERE / "suite.toml", "--arch", models.SPECS[name].longhaul, "--task", training.task]
    common.call([*arguments, "--jobs", 1, "--out", folder, *more], timeout=3600)
    (model,) = pathlib.Path(folder, "models").glob("*.safetensors")
    with open(pathlib.Path(folder, "training.csv"), newline="") as file:
        return {int(row["step"]): float(row["loss"]) for row in csv.DictReader(file)}, models.read_safetensors(model)


def initial(name, training, folder):
    return run(name, training, folder, "--steps", 1, "--lr", "1e-30")[1]


def batches(training, folder):
    """Tokens and targets, [steps, rows, T]."""
    file = pathlib.Path(folder, "batches.safetensors")
    program = pathlib.Path(common.longhaul()).parent / "examples/batches"
    lengths = f"{training.length_min}..{training.length}"
    words = [program, training.task, lengths, training.rows, SEED, training.steps, file]
    common.command(words)
    tensors = models.read_safetensors(file)
    return tensors["tokens"].long(), tensors["targets"].long()


def losses(model, training, tokens, targets):
    """PyTorch's loss at each step in turn."""
    decayed, others = [], []
    for name, parameter in model.named_parameters():
        with_decay = parameter.dim() >= 2 and not name.endswith(NOT_DECAYED)
        (decayed if with_decay else others).append(parameter)
    groups = [{"params": decayed, "weight_decay": training.weight_decay}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=training.rate, betas=BETAS, eps=EPSILON)
    for step in range(training.steps):
        for group in optimizer.param_groups:
            group["lr"] = training.learning_rate(step)
        optimizer.zero_grad()
        loss = model.loss(tokens[step], targets[step])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
        optimizer.step()
        yield loss.item()


def model_of(name, vocab, suite, parameters):
    sizes = suite["model"]
    model = models.Model(models.SPECS[name], vocab, sizes["d_model"], sizes["layers"])
    models.load(model, parameters)
    return model


def both(model, training, tokens, targets):
    """The losses of float64 and of float32 at each step in turn."""
    double = copy.deepcopy(model).double()
    return zip(losses(double, training, tokens, targets), losses(model, training, tokens, targets))


def compare(name, training, suite, first):
    """Prints the table of one training, of its first steps only where so many are named; whether all of it is well."""
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        ours, _ = run(name, training, folder / "whole")
        parameters = initial(name, training, folder / "initial")
        tokens, targets = batches(training, folder)
    model = model_of(name, parameters["embedding.weight"].shape[0], suite, parameters)
    print(f"\n{name} on {training.task}, T {training.length_min}..{training.length}, {training.steps} steps, lr {training.rate}")
    print(f"{'step':>6} {'Longhaul':>12} {'float32':>12} {'float64':>12} {'Longhaul off':>13} {'float32 off':>12}")
    worst, compared = 0.0, "all steps"
    for step, (exact, single) in enumerate(both(model, training, tokens, targets)):
        if first and step >= first:
            compared = f"the first {first} steps"
            break
        if step not in ours:
            continue
        off, single_off = abs(ours[step] - exact) / exact, abs(single - exact) / exact
        print(f"{step:>6} {ours[step]:12.6f} {single:12.6f} {exact:12.6f} {off:13.1e} {single_off:12.1e}", flush=True)
        if single_off > PARTED:
            compared = f"the steps before {step}, where float32 parts from float64"
            break
        worst = max(worst, off)
    good = worst <= LIMIT and step >= LEAST_STEPS
    print(f"{name}: over {compared}, Longhaul is off by {worst:.1e} at most: {'same' if good else 'DIFFERENT'}", flush=True)
    return good


# Golden losses. -------------------------------------------------------------------------------------------------------

GOLDEN_STEPS, GOLDEN_ROWS, GOLDEN_LENGTH, GOLDEN_VOCAB = 50, 8, 48, 64


def golden_batches():
    """Tokens by a linear congruence of 32 bits; each is to be said three positions later, but where it is even."""
    state, tokens = 1, []
    for _ in range(GOLDEN_STEPS * GOLDEN_ROWS * GOLDEN_LENGTH):
        state = (state * 1664525 + 1013904223) % 2**32
        tokens.append(state >> 26)
    tokens = torch.tensor(tokens).reshape(GOLDEN_STEPS, GOLDEN_ROWS, GOLDEN_LENGTH)
    targets = torch.full_like(tokens, -1)
    said = tokens[..., :-3]
    targets[..., 3:] = torch.where(said % 2 == 1, said, -1)
    return tokens, targets


def write_golden(names, suite, task):
    training = Training(suite, task, GOLDEN_STEPS)
    tokens, targets = golden_batches()
    with open(HERE / "golden.csv", "w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["architecture", "step", "loss", "loss_float32"])
        for name in names:
            with tempfile.TemporaryDirectory() as folder:
                parameters = initial(name, training, pathlib.Path(folder, "initial"))
            model = model_of(name, GOLDEN_VOCAB, suite, parameters)
            each = enumerate(both(model, training, tokens, targets))
            rows.writerows([name, step, f"{exact:.9f}", f"{single:.9f}"] for step, (exact, single) in each)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--only", action="append", metavar="NAME", help="an architecture of suite.toml")
    parser.add_argument("--task", action="append", metavar="NAME", help="a task of suite.toml, without options")
    parser.add_argument("--first", type=int, metavar="STEPS", help="compare the first steps of each training only")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--golden", action="store_true", help="write golden.csv and compare nothing")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    common.precision("float32")
    suite = tomllib.loads((HERE / "suite.toml").read_text())
    names = args.only or [architecture["name"] for architecture in suite["architecture"]]
    if args.golden:
        return write_golden(names, suite, suite["task"][0])
    tasks = [task for task in suite["task"] if not args.task or task["name"].split(":")[0] in args.task]
    good = [compare(name, Training(suite, task), suite, args.first) for task in tasks for name in names]
    raise SystemExit(0 if good and all(good) else 1)


if __name__ == "__main__":
    main()
