"""What was asked for and what was reached, from the tables of one or more folders, card by card. Rows that were not
measured on a card (a CPU, the simulated driver) do not count; of rows that are there twice the last counts.

Usage: summary.py FOLDER...

`met` needs every row that was asked. Where all that are there reach it and others failed or are missing, the word is
`incomplete`."""

import csv
import pathlib
import sys

import asked


def is_a_card(name):
    return name not in ("", "cpu") and not name.startswith("Simulated")


def rows_of(folders, name):
    """All rows of a table that were measured on a card, strings by column; not a last line that was cut."""
    rows = []
    for folder in folders:
        path = pathlib.Path(folder, name)
        if path.exists():
            with open(path, newline="") as file:
                rows += (row for row in csv.DictReader(file) if None not in row.values() and is_a_card(row["card"]))
    return rows


def last(rows, names):
    """The last row of each key, by the values of these columns."""
    return {tuple(row[name] for name in names): row for row in rows}


def number(row, name):
    return float(row[name]) if row.get(name) else None


def line(what, wanted, rows, value, least, label):
    """One line: the worst and the best of a column among the rows that are wanted, and whether all reach what is asked.
    `rows` are by key; a row is good where it has the value."""
    good = [(number(rows[key], value), key) for key in wanted if key in rows and number(rows[key], value) is not None]
    failed = sum(key in rows for key in wanted) - len(good)
    missing = len(wanted) - len(good) - failed
    words = f"{what}: asked {least:g}x"
    if not good:
        lost = f" ({failed} of {len(wanted)} rows failed)" if failed else ""
        return f"{words}, not measured{lost}"
    good.sort()
    worst, best = good[0], good[-1]
    reached = sum(pair[0] >= least for pair in good)
    spread = f"reached {worst[0]:.2f}x ({label(worst[1])}) to {best[0]:.2f}x ({label(best[1])})"
    counts = f"{reached} of {len(wanted)} rows"
    if failed or missing:
        counts += f", {failed} failed, {missing} missing"
    verdict = "NOT met" if reached < len(good) else "met" if len(good) == len(wanted) else "incomplete"
    return f"{words}, {spread}; {counts}: {verdict}"


def by_model(key):
    return f"{key[0]}, D {key[1]}, {key[2]}, {key[3]}"


def by_shape(key):
    width = f", head width {key[2]}" if key[2] else ""
    return ", ".join([f"{key[0]}, T {key[1]}{width}", *key[3:]])


def training(rows):
    """Lines of small models, beside PyTorch's own; rows of mamba_ssm and fla stand in the table beside them."""
    names = ["arch", "d_model", "products", "peer"]
    plain = {arch: asked.label(arch, "plain PyTorch") for arch in asked.ARCHS}
    wanted = [(arch, str(d), products, plain[arch]) for arch in asked.ARCHS for d in asked.WIDTHS for products in asked.PRODUCTS]
    for form, what in (("eager", "PyTorch eager"), ("compile", "torch.compile with CUDA graphs")):
        good = last([row for row in rows if row["form"] == form], names)
        good = {key: row if row["status"] == "ok" else {} for key, row in good.items()}
        yield line(f"small models beside {what}", wanted, good, "ratio", asked.FORMS[form], by_model)


def kernels(rows):
    """Lines of operations by themselves, one for each ratio that is asked."""
    for operation, (_, _, _, _, peers) in asked.OPERATIONS.items():
        mine = [row for row in rows if row["operation"] == operation]
        # A shape that failed as a whole names neither pass nor peer, one that is different no peer.
        spread = []
        for row in mine:
            passes = [row["pass"]] if row["pass"] else asked.PASSES
            for one in passes:
                spread += [dict(row, **{"pass": one, "peer": peer}) for peer in ([row["peer"]] if row["peer"] else peers)]
        known = last(spread, ["pass", "length", "head_dim", "peer"])
        good = {key: row if row["status"] == "ok" else {} for key, row in known.items()}
        for peer, (least, longest) in peers.items():
            if least is None:
                continue
            shapes = [(str(length), asked.head_dim(operation, width)) for length, width in asked.shapes(operation) if length <= longest]
            wanted = [(one, *shape, peer) for shape in shapes for one in asked.PASSES]
            yield line(f"{operation} beside {peer}", wanted, good, "ratio", least, by_shape)


def long_read(rows):
    """The line of the long read: two lengths of the same model."""
    what = "mamba2 of 370M shape reads a million tokens in constant memory"
    known = last(rows, ["length"])
    failed = sum(row["status"] != "ok" for row in known.values())
    lost = f", {failed} failed" if failed else ""
    ends = [known.get((str(length),)) for length in asked.READS]
    if not all(row and row["status"] == "ok" for row in ends):
        there = ", ".join(key[0] for key, row in known.items() if row["status"] == "ok") or "nothing"
        return f"{what}: not measured at both {asked.READS[0]} and {asked.READS[1]} tokens (measured: {there}{lost})"
    short, far = ends
    memory = [row["device_memory_bytes"] or "unknown" for row in ends]
    words = f"{what}: {far['length']} tokens with {far['parameters']} parameters"
    words += f", state {short['state_bytes']} and {far['state_bytes']} bytes, card {memory[0]} and {memory[1]} bytes"
    words += f" at {short['length']} and {far['length']} tokens{lost}"
    steady = "unknown" not in memory and float(memory[1]) <= asked.READ_GROWTH * float(memory[0])
    same = short["state_bytes"] == far["state_bytes"] and short["parameters"] == far["parameters"]
    enough = int(far["parameters"]) >= asked.READ_PARAMETERS
    return f"{words}: {'met' if steady and same and enough else 'NOT met'}"


def counted(what, rows, words):
    counts = ", ".join(f"{sum(row['result'] == word for row in rows)} {word}" for word in words)
    return f"{what}: {counts}" if rows else f"{what}: not measured"


def conformance(rows):
    """The line of checks. A library that could not be checked has a row without a check, until it could."""
    known = last(rows, ["library", "architecture", "check"])
    at = {row["library"]: index for index, row in enumerate(rows) if row["check"]}
    broken = {row["library"]: index for index, row in enumerate(rows) if not row["check"]}
    good = [row for row in known.values() if row["check"] or broken[row["library"]] > at.get(row["library"], -1)]
    return counted("conformance", good, ("ok", "failed", "skipped"))


def main():
    folders = sys.argv[1:]
    if not folders:
        raise SystemExit(__doc__)
    names = ("throughput.csv", "kernels.csv", "checks.csv", "sanitizer.csv", "long.csv")
    tables = {name: rows_of(folders, name) for name in names}
    cards = sorted({row["card"] for rows in tables.values() for row in rows})
    print(f"measured on: {', '.join(cards) or 'nothing'}")
    for card in cards or [""]:
        if len(cards) > 1:
            print(f"\n{card}")
        speed, operations, checks, sanitized, reads = ([row for row in tables[name] if row["card"] == card] for name in names)
        print(conformance(checks))
        print(counted("sanitizer", list(last(sanitized, ["arch", "products", "tool"]).values()), ("ok", "failed")))
        for text in (*training(speed), *kernels(operations), long_read(reads)):
            print(text)


if __name__ == "__main__":
    main()
