#!/usr/bin/env python3
"""The paper's tables 1 to 4 and 7 to 19 beside what was measured here, in Markdown, by multiples of the training length.

    python3 results/reference/huang2025/beside.py [RUN]

paper.csv holds the numbers of arXiv 2407.08112 v3, in percent; RUN is a run's folder, this one where none is given."""

import collections
import csv
import pathlib
import sys

HERE = pathlib.Path(__file__).parent
RUN = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else HERE

# The paper's model, its training length as tables 2 and 3 take it, and the architecture of its class here.
PAIRS = [
    ("TPP", 2048, "transformer", "conv=4,d_model=64,layers=2"),
    ("Mamba2", 2048, "mamba2", "d_model=64,layers=4"),
    ("M2A", 2048, "mamba2attn", "d_model=64,layers=4,pattern=mamba2*2+attention+mamba2"),
    ("RG", 2048, "griffin", "d_model=64,layers=2,pattern=recurrent+attention,window=256"),
    ("RWKV", 4096, "rwkv6", "d_model=60,layers=2"),
]
# What stands beside them here alone.
ALONE = [
    ("transformer, YaRN", "transformer", "conv=4,d_model=64,eval.rope_factor=8,eval.rope_original_length=256,eval.rope_scaling=yarn,layers=2"),
    ("transformer, no positions", "transformer", "conv=4,d_model=64,layers=2,positions=nope"),
    ("transformer, window 256", "transformer", "conv=4,d_model=64,layers=2,window=256"),
    ("transformer, no convolution", "transformer", "d_model=64,layers=2"),
    ("lstm", "lstm", "d_model=72,layers=2"),
]
MULTIPLES = [0.5, 1, 2, 4, 8]
TASKS = {  # the paper's tables
    7: "niah_single_1", 8: "niah_single_2", 9: "niah_single_3", 10: "niah_multikey_1", 11: "niah_multikey_2",
    12: "niah_multikey_3", 13: "niah_multivalue", 14: "niah_multiquery", 15: "vt", 16: "cwe", 17: "fwe", 18: "qa_1", 19: "qa_2",
}
TYPES = {"Repeat-Word-Num": "niah_single_1", "Essay-Word-Num": "niah_single_2", "Essay-Word-UUID": "niah_single_3"}

paper = collections.defaultdict(dict)
for row in csv.DictReader(open(HERE / "paper.csv")):
    key = (int(row["table"]), row["model"], row["task"], row["depth"])
    paper[key][int(row["length"])] = float(row["percent"])

# By architecture, label and multiple: right answers and answers of each seed.
ours = collections.defaultdict(dict)
for row in csv.DictReader(open(RUN / "results.csv")):
    if row["split"] == "test" and row["status"] == "ok":
        multiple = int(row["eval_length"]) / int(row["train_length"])
        key = (row["architecture"], row["options"], row["label"], multiple)
        ours[key][row["seed"]] = (int(row["correct"]), int(row["samples"]))


def measured(architecture, options, labels, multiple):
    """The mean over seeds in percent, and the seeds."""
    seeds = collections.defaultdict(lambda: [0, 0])
    for label in labels:
        for seed, (correct, samples) in ours[(architecture, options, label, multiple)].items():
            seeds[seed][0] += correct
            seeds[seed][1] += samples
    shares = [100 * correct / samples for correct, samples in seeds.values()]
    return (sum(shares) / len(shares), sorted(shares)) if shares else None


def cell(found, seeds=False):
    if found is None:
        return "-"
    mean, shares = found
    return f"{mean:.0f} ({'/'.join(f'{share:.0f}' for share in shares)})" if seeds else f"{mean:.0f}"


def table(heads, rows):
    print("| " + " | ".join(heads) + " |")
    print("|" + "---|" * len(heads))
    for row in rows:
        print("| " + " | ".join(row) + " |")
    print()


times = [f"{multiple:g}x" for multiple in MULTIPLES]

print("**Table 1**: the mean of the thirteen tasks, %; here the mean of three seeds and the seeds.\n")
rows = []
for model, trained, architecture, options in PAIRS:
    values = paper[(1, model, "mean of thirteen", "")]
    rows.append([f"{model}, paper"] + [f"{values[m * trained]:.0f}" if m * trained in values else "-" for m in MULTIPLES])
    rows.append([architecture] + [cell(measured(architecture, options, [""], m), True) for m in MULTIPLES])
for name, architecture, options in ALONE:
    rows.append([name] + [cell(measured(architecture, options, [""], m), True) for m in MULTIPLES])
table(["model"] + times, rows)

depths = ["0", "20", "40", "50", "60", "80", "100"]
for number, multiple in ((2, 1), (3, 2)):
    print(f"**Table {number}**: one needle by its depth in %, the mean of the three kinds of data, at {multiple}x.\n")
    rows = []
    for model, trained, architecture, options in PAIRS:
        rows.append([f"{model}, paper"] + [f"{paper[(number, model, 'one needle', depth)][trained * multiple]:.0f}" for depth in depths])
        labels = lambda depth: [f"{task}_depth={int(depth) / 100:.2f}" for task in TYPES.values()]
        rows.append([architecture] + [cell(measured(architecture, options, labels(depth), multiple)) for depth in depths])
    table(["model"] + depths, rows)

print("**Table 4**: by kind of data; needles at the beginning, in the middle, at the end.\n")
rows = []
for model, trained, architecture, options in PAIRS[:3]:
    for multiple in MULTIPLES[:3]:
        theirs, own = [f"{model}, paper", f"{multiple:g}x"], [architecture, f"{multiple:g}x"]
        for kind, task in TYPES.items():
            values = [paper[(4, model, kind, depth)][int(trained * multiple)] for depth in ("0", "50", "100")]
            theirs.append(" / ".join(f"{value:.0f}" for value in values))
            found = [measured(architecture, options, [f"{task}_depth={depth}"], multiple) for depth in ("0.00", "0.50", "1.00")]
            own.append(" / ".join(cell(one) for one in found))
        rows += [theirs, own]
table(["model", "length"] + list(TYPES), rows)

print("**Tables 7 to 19**: each task at 1/2, 1, 2, 4 and 8 times the training length, %.\n")
rows = []
for number, task in TASKS.items():
    theirs, own = [f"{task}, paper"], [task]
    for model, trained, architecture, options in PAIRS:
        values = paper[(number, model, task, "")]
        theirs.append(" ".join(f"{values[m * trained]:.0f}" if m * trained in values else "-" for m in MULTIPLES))
        own.append(" ".join(cell(measured(architecture, options, [f"task={task}"], m)) for m in MULTIPLES))
    rows += [theirs, own]
table(["task"] + [f"{model}: {architecture}" for model, _, architecture, _ in PAIRS], rows)
