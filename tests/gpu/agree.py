"""Whether PyTorch's models are Longhaul's: the same parameters on the same batch give the same loss and gradient norm.

Usage: agree.py [--device cpu|cuda:0] [--only NAME]...

`longhaul run` with one step of a learning rate of almost 0 leaves the first batch's loss and gradient norm in
training.csv and the parameters in models/; `longhaul show` prints the batch. Exits with 1 where a model differs."""

import argparse
import csv
import pathlib
import re
import subprocess
import tempfile

import torch

import common
import models

BATCH, LENGTH, VOCAB, D_MODEL, LAYERS = 4, 160, 64, 64, 2
TASK = f"mqar:pairs=8,vocab={VOCAB}"
# Largest relative differences of loss and gradient norm: of plain PyTorch, and of libraries, whose kernels multiply
# float32 with TF32's precision.
PLAIN_LIMITS, LIBRARY_LIMITS = (1e-5, 1e-3), (1e-3, 3e-2)


def token(symbol):
    """A token of MQAR from what `longhaul show` calls it."""
    if symbol == ".":
        return 0
    return int(symbol[1:]) + (VOCAB // 2 if symbol[0] == "v" else 0)


def example(index):
    """Tokens and targets of training example `index`; -1 is not scored."""
    arguments = [common.longhaul(), "show", TASK, "--length", str(LENGTH), "--split", "train", "--index", str(index)]
    text = subprocess.run(arguments, check=True, capture_output=True, text=True).stdout
    tokens, targets = [], []
    lines = text.split("\n\n")[1].splitlines()
    # What is to be said is a value, so a line of values alone belongs to the tokens above it.
    said_in = [bool(line.split()) and all(word[0] == "v" for word in line.split()) for line in lines]
    for at, upper in enumerate(lines):
        if said_in[at]:
            continue
        lower = lines[at + 1] if at + 1 < len(lines) and said_in[at + 1] else ""
        for found in re.finditer(r"\S+", upper):
            said = re.match(r"\S+", lower[found.start() :])
            tokens.append(token(found.group()))
            targets.append(token(said.group()) if said else -1)
    if len(tokens) != LENGTH:
        raise RuntimeError(f"`longhaul show` gave {len(tokens)} of {LENGTH} tokens")
    return tokens, targets


def batch(device):
    examples = [example(index) for index in range(BATCH)]
    return (torch.tensor(part, device=device) for part in zip(*examples))


class Ours:
    """Longhaul's loss, gradient norm and parameters of an architecture."""

    def __init__(self, name, device):
        spec = models.SPECS[name]
        with tempfile.TemporaryDirectory() as folder:
            sizes = ["--d-model", D_MODEL, "--layers", LAYERS, "--batch", BATCH, "--train-length", LENGTH]
            once = ["--steps", 1, "--lr", 1e-12, "--seeds", 1, "--lengths", LENGTH, "--samples", 1]
            common.call(["run", "--arch", spec.longhaul, "--task", TASK, *sizes, *once, "--device", device, "--out", folder])
            with open(pathlib.Path(folder, "training.csv"), newline="") as file:
                first = next(csv.DictReader(file))
            self.loss, self.norm = float(first["loss"]), float(first["gradient_norm"])
            (path,) = pathlib.Path(folder, "models").glob("*.safetensors")
            self.parameters = models.read_safetensors(path)


def same(recurrences, loss, norm):
    """Whether differences are within the limits."""
    limits = PLAIN_LIMITS if recurrences is models.PLAIN else LIBRARY_LIMITS
    return loss <= limits[0] and norm <= limits[1]


def differences(name, ours, device, recurrences=models.PLAIN):
    """Relative differences of loss and gradient norm."""
    common.precision("float32")
    model = models.Model(models.SPECS[name], VOCAB, D_MODEL, LAYERS, recurrences)
    models.load(model, ours.parameters)
    model.to(device)
    loss = model.loss(*batch(device))
    loss.backward()
    norm = torch.cat([parameter.grad.flatten() for parameter in model.parameters()]).norm().item()
    return abs(loss.item() - ours.loss) / ours.loss, abs(norm - ours.norm) / ours.norm


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--only", action="append")
    args = parser.parse_args()
    found, missing = models.kernels()
    for library, why in missing.items():
        print(f"{library} is not here: {why}")
    wrong = 0
    for name in args.only or models.SPECS:
        try:
            ours = Ours(name, args.device)
        except RuntimeError as error:
            print(f"{name}: longhaul failed: {error}")
            wrong += 1
            continue
        rows = [models.PLAIN, *(kernels for kernels, has in found.values() if name in has)]
        for recurrences in rows:
            try:
                loss, norm = differences(name, ours, args.device, recurrences)
            except Exception as error:
                print(f"{name}, {recurrences.name}: {common.reason(error)}")
                wrong += recurrences is models.PLAIN
                continue
            good = same(recurrences, loss, norm)
            wrong += not good
            print(f"{name}, {recurrences.name}: loss off by {loss:.1e}, norm by {norm:.1e}: {'same' if good else 'DIFFERENT'}")
    raise SystemExit(1 if wrong else 0)


if __name__ == "__main__":
    main()
