"""What was asked for and what was reached, from the tables of one or more folders. Rows that were not measured on a
card (a CPU, the simulated driver) do not count.

Usage: summary.py FOLDER..."""

import csv
import pathlib
import sys


def is_a_card(name):
    return name not in ("", "cpu") and not name.startswith("Simulated")


def rows_of(folders, name):
    """All rows of a table that were measured on a card, strings by column."""
    rows = []
    for folder in folders:
        path = pathlib.Path(folder, name)
        if path.exists():
            with open(path, newline="") as file:
                rows += (row for row in csv.DictReader(file) if is_a_card(row["card"]))
    return rows


def number(row, name):
    return float(row[name]) if row.get(name) else None


def line(what, rows, value, asked, label, unit="x", factor=1):
    """One line: the worst and the best of a column, and how many rows reach what was asked."""
    measured = [(number(row, value), row) for row in rows if number(row, value) is not None]
    words = f"{what}: asked {factor * asked:g}{unit}"
    if not measured:
        return f"{words}, not measured"
    measured.sort(key=lambda pair: pair[0])
    worst, best = measured[0], measured[-1]
    reached = sum(pair[0] >= asked for pair in measured)
    spread = f"reached {factor * worst[0]:.2f}{unit} ({label(worst[1])}) to {factor * best[0]:.2f}{unit} ({label(best[1])})"
    verdict = "met" if reached == len(measured) else "NOT met"
    return f"{words}, {spread}; {reached} of {len(measured)} rows: {verdict}"


def by_model(row):
    return f"{row['arch']}, D {row['d_model']}, {row['products']}, {row['peer']}"


def by_shape(row):
    width = f", head width {row['head_dim']}" if row["head_dim"] else ""
    peer = f", {row['peer']}" if row.get("ratio") else ""
    return f"{row['pass']}, T {row['length']}{width}{peer}"


def once(rows):
    """Rows of one of ours each: its rate is the same beside every peer."""
    return list({(row["operation"], row["pass"], row["length"], row["head_dim"], row["date"]): row for row in rows}.values())


def long_read(rows):
    """The line of the long read."""
    what = "mamba2 of 370M shape reads a million tokens in constant memory"
    good = [row for row in rows if row["status"] == "ok"]
    if not good:
        return f"{what}: not measured"
    good.sort(key=lambda row: int(row["length"]))
    short, far = good[0], good[-1]
    memory = [row["device_memory_bytes"] or "unknown" for row in (short, far)]
    words = f"{what}: {far['length']} tokens with {far['parameters']} parameters"
    words += f", state {short['state_bytes']} and {far['state_bytes']} bytes, card {memory[0]} and {memory[1]} bytes"
    words += f" at {short['length']} and {far['length']} tokens"
    known = "unknown" not in memory
    same = short["state_bytes"] == far["state_bytes"] and known and float(memory[1]) <= 1.05 * float(memory[0])
    enough = int(far["length"]) >= 1 << 20 and int(far["parameters"]) >= 300_000_000 and short is not far
    return f"{words}: {'met' if same and enough else 'NOT met'}"


def main():
    folders = sys.argv[1:]
    if not folders:
        raise SystemExit(__doc__)
    speed = [row for row in rows_of(folders, "throughput.csv") if row["status"] == "ok"]
    kernels = rows_of(folders, "kernels.csv")
    checks = rows_of(folders, "checks.csv")
    cards = sorted({row["card"] for row in speed + kernels + checks + rows_of(folders, "long.csv") if row["card"]})
    print(f"measured on: {', '.join(cards) or 'nothing'}")
    results = [row["result"] for row in checks]
    counts = ", ".join(f"{results.count(word)} {word}" for word in ("ok", "failed", "skipped"))
    print(f"conformance: {counts}" if checks else "conformance: not measured")
    # PyTorch's own; rows of mamba_ssm and fla stand in the table beside them.
    own = [row for row in speed if "PyTorch" in row["peer"]]
    of = {form: [row for row in own if row["form"] == form] for form in ("eager", "compile")}
    print(line("small models beside PyTorch eager", of["eager"], "ratio", 5.0, by_model))
    print(line("small models beside torch.compile with CUDA graphs", of["compile"], "ratio", 2.0, by_model))
    named = {name: [row for row in kernels if row["operation"] == name] for name in ("scan", "ssd", "attention")}
    print(line("scan beside mamba_ssm", named["scan"], "ratio", 0.9, by_shape))
    print(line("SSD beside mamba_ssm and fla", named["ssd"], "ratio", 0.9, by_shape))
    print(line("scan over a copy's rate", once(named["scan"]), "share_of_copy", 0.7, by_shape, " %", 100))
    print(line("attention beside PyTorch's fused, bf16", named["attention"], "ratio", 0.6, by_shape))
    print(long_read(rows_of(folders, "long.csv")))


if __name__ == "__main__":
    main()
