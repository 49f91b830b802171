"""What an architecture costs: lines of the plugins by role, every architecture's speed beside mamba2, and memory over length.

Usage: plugins.py lines
       plugins.py memory [--only NAME]...
       plugins.py speed [--only NAME]... [--rounds N] [--seconds S]

`lines` counts the lines of each plugin's files that are not blank, tests apart. `speed` needs a built Longhaul
(target/release/longhaul, or LONGHAUL): each round times mamba2, then the architecture, training and feeding, with
`longhaul bench`'s own sizes (B 16, T 256 and B 1, T 4096; D 128, 2 layers, vocabulary 512, 2 threads); the ratio is the
median of the rounds. Of mamba2 without an MLP and with one, the rounds time that whose number of parameters is closer.
`memory` needs the same, and reads 2^14 and 2^20 tokens (D 32, 2 layers) by every architecture whose state does not grow: bytes at
the peak, of the whole process. All tables are Markdown. Only the standard library is used."""

import argparse
import json
import os
import pathlib
import statistics
import subprocess

ROOT = pathlib.Path(__file__).resolve().parent.parent
LONGHAUL = os.environ.get("LONGHAUL", str(ROOT / "target/release/longhaul"))
MODES = {"train": [], "feed": ["--batch", "1", "--length", "4096"]}
BASES = ["mamba2", "mamba2:mlp=gated"]
ROLES = ["layers, options", "forms for CPU and card", "kernels", "checkpoints", "tests", "page"]


def plugins():
    """The plugins of this build, each with the names of its architectures."""
    listed = json.loads(subprocess.run([LONGHAUL, "list", "--json"], check=True, capture_output=True).stdout)
    return {p["name"].removeprefix("longhaul-"): [a["name"] for a in p["architectures"]] for p in listed}


def role(path):
    """The role of a file below a plugin's folder, or None."""
    if path.name == "README.md":
        return "page"
    if path.suffix in (".cu", ".cuh"):
        return "kernels"
    if path.suffix != ".rs" or path.parts[0] == "examples":
        return None
    if path.parts[0] == "tests" or path.stem in ("tests", "reference"):
        return "tests"
    text = " ".join(path.parts)
    if "checkpoint" in text or path.stem in ("qwen3_next", "jamba"):
        return "checkpoints"
    # A file that computes an operation, and not a layer of the kit's ones.
    return None if path.parts[0] == "cdylib" else "source"


def lines():
    print("| plugin | architectures | " + " | ".join(ROLES) + " | all but tests, an architecture |")
    print("|---|--:|" + "--:|" * (len(ROLES) + 1))
    for name, architectures in sorted(plugins().items()):
        folder = ROOT / "plugins" / name
        counts = dict.fromkeys(ROLES, 0)
        for path in sorted(folder.rglob("*")):
            kind = role(path.relative_to(folder)) if path.is_file() else None
            if kind is None:
                continue
            text = path.read_text()
            if kind == "source":
                kind = ROLES[1] if "impl Operation for" in text or "simd!" in text or "CudaRun" in text else ROLES[0]
            counts[kind] += sum(1 for line in text.splitlines() if line.strip())
        cost = (sum(counts.values()) - counts["tests"]) / len(architectures)
        print(f"| {name} | {len(architectures)} | " + " | ".join(str(counts[r]) for r in ROLES) + f" | {cost:.0f} |")


def timed(architecture, mode, seconds):
    words = [LONGHAUL, "bench", "--arch", architecture, "--mode", mode, "--seconds", str(seconds), *MODES[mode]]
    return json.loads(subprocess.run(words, check=True, capture_output=True).stdout)


def memory(only):
    listed = json.loads(subprocess.run([LONGHAUL, "list", "--json"], check=True, capture_output=True).stdout)
    print("| architecture | state | peak at 2^14 tokens | at 2^20 | more |")
    print("|---|--:|--:|--:|--:|")
    for architecture in (a for plugin in listed for a in plugin["architectures"]):
        name = architecture["name"]
        if architecture["state_growth"] == "linear" or (only and name not in only):
            continue
        words = [LONGHAUL, "bench", "--arch", name, "--mode", "feed", "--batch", "1", "--seconds", "0.01"]
        words += ["--d-model", "32", "--layers", "2", "--vocab", "64", "--threads", "1", "--length"]
        ran = [subprocess.run([*words, str(1 << power)], capture_output=True, text=True) for power in (14, 20)]
        if any(one.returncode for one in ran):
            said = " ".join(ran[-1].stderr.split()) or "no word"
            print(f"| {name} | | | {said} | |", flush=True)
            continue
        short, long = (json.loads(one.stdout) for one in ran)
        peaks = [one["peak_memory_bytes"] for one in (short, long)]
        print(f"| {name} | {long['state_bytes']:,} B | {peaks[0] / 1e6:.2f} MB | {peaks[1] / 1e6:.2f} MB | {100 * (peaks[1] / peaks[0] - 1):+.1f} % |", flush=True)


def speed(only, rounds, seconds):
    bases = {timed(base, "train", 0.01)["parameters"]: base for base in BASES}
    print("| architecture | parameters | of mamba2 | " + " | ".join(f"{mode}, tokens/s | over mamba2" for mode in MODES) + " |")
    print("|---|--:|--:|" + "--:|" * (2 * len(MODES)))
    for names in plugins().values():
        for name in names:
            if only and name not in only:
                continue
            cells = []
            parameters = timed(name, "train", 0.01)["parameters"]
            closest = min(bases, key=lambda base: abs(base - parameters))
            for mode in MODES:
                pairs = [(timed(bases[closest], mode, seconds), timed(name, mode, seconds)) for _ in range(rounds)]
                ratio = statistics.median(own["tokens_per_second"] / base["tokens_per_second"] for base, own in pairs)
                best = statistics.median(own["tokens_per_second"] for _, own in pairs)
                cells += [f"{best:,.0f}", f"{ratio:.2f}"]
            print(f"| {name} | {parameters:,} | {closest:,} | " + " | ".join(cells) + " |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=["lines", "memory", "speed"])
    parser.add_argument("--only", action="append", default=[])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0)
    options = parser.parse_args()
    if options.table == "lines":
        lines()
    elif options.table == "memory":
        memory(set(options.only))
    else:
        speed(set(options.only), options.rounds, options.seconds)


if __name__ == "__main__":
    main()
