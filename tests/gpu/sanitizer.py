"""compute-sanitizer's tools on small models, as sanitizer.csv: a row a model, way to multiply and tool.

Usage: sanitizer.py --program compute-sanitizer [--device cuda:0] [--csv FILE] [--archs A,B] [--tools memcheck,racecheck,...]
                    [--limit 250] [--timeout 500]

A model reads a short sequence, and its gradients are checked. Transformer with bf16 products and mamba2 with tf32 ones,
which are other kernels, train for two steps and are evaluated instead: the checks are for strict products. Kernels of matrix
products are NVIDIA's, and are not watched but by initcheck, which has to know what they write. A row that is `ok` in the
table for the same build is not made again. The log of one that fails lies beside the table. Exits with 1 where a row
fails or is left."""

import argparse
import contextlib
import os
import pathlib
import re
import signal
import subprocess
import tempfile
import time

import common

COLUMNS = ["arch", "products", "tool", "build", "result", "seconds", "detail"]
TOOLS = ["memcheck", "racecheck", "initcheck", "synccheck"]
MODELS = ["lstm", "mamba2", "transformer", "mamba", "rwkv4", "rwkv6", "rwkv7", "griffin"]
# Kernels that only another way to multiply has.
TENSOR_CORES = {"transformer": "bf16", "mamba2": "tf32"}
MODEL = ["--batch", "2", "--d-model", "64", "--layers", "1"]
READ = [*MODEL, "--mode", "feed", "--length", "72", "--vocab", "64", "--seconds", "0.01"]
TRAIN = [*MODEL, "--task", "induction", "--train-length", "72", "--lengths", "72", "--steps", "2", "--samples", "2", "--seeds", "1"]
# Options that make a tool faster, where it has them: by their names whose kernels cuBLASLt's are, and what memcheck and racecheck
# have followed of allocations in a stream's order, of which there are none, since 2025.
PRODUCTS = [word for part in ("gemm", "cutlass", "nvjet") for word in ("--kernel-name-exclude", f"kns={part}")]
UNORDERED = ["--track-stream-ordered-races", "no"]
FASTER = {"memcheck": PRODUCTS + UNORDERED, "racecheck": PRODUCTS + UNORDERED, "synccheck": PRODUCTS, "initcheck": []}
# Exit code of a tool that found something.
FOUND = 97


def commands(arch, products, device, folder):
    """What a tool watches, each in a process of its own."""
    on = ["--arch", arch, "--device", device]
    if products == "float32":
        programs = [["bench", *on, *READ], ["check", arch, "--device", device, "--only", "gradients"]]
    else:
        # A training and an evaluation; the folder is new.
        programs = [["run", *on, *TRAIN, "--jobs", "1", "--out", str(pathlib.Path(folder, "run"))]]
    return [[common.longhaul(), *words] for words in programs]


def options(program, tool):
    """What of FASTER this version takes: pairs of an option and its value."""
    ran = subprocess.run([program, "--help"], capture_output=True, text=True, timeout=60)
    words = FASTER[tool]
    pairs = zip(words[::2], words[1::2])
    return [word for pair in pairs if pair[0] in ran.stdout for word in pair]


def watched(command, environment, limit, log):
    """Runs it with its output in `log`; the exit code, None where it took too long."""
    # A group of its own: the tool has the program, and the program its workers.
    ran = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment, start_new_session=True)
    try:
        return ran.wait(timeout=limit)
    except subprocess.TimeoutExpired:
        return None
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(ran.pid, signal.SIGKILL)
        ran.wait()


def look(arch, products, tool, args, end, folder):
    """Result (`left` where the call's time is over), detail and the log's text of one row; without a tool, whether the program runs by itself. `folder` is empty."""
    environment = dict(os.environ, LONGHAUL_PRODUCTS=products)
    text, before = "", []
    if tool:
        before = [args.program, "--tool", tool, "--target-processes", "all", "--error-exitcode", str(FOUND), "--print-limit", "20"]
        before += options(args.program, tool)
    for words in commands(arch, products, args.device, folder):
        with tempfile.TemporaryFile("w+", dir=folder) as log:
            limit = min(args.limit, end - time.monotonic())
            code = watched([*before, *words], environment, max(limit, 0.0), log)
            log.seek(0)
            text += log.read()
        if code is None and limit < args.limit:
            return "left", "", text
        if code is None:
            return "failed", f"`longhaul {words[1]}` took more than {args.limit:.0f} s", text
        found = re.search(r"(ERROR|RACECHECK) SUMMARY: [1-9].*", text)
        if code != 0 or found:
            last = (text.strip().splitlines() or [""])[-1][:200]
            return "failed", found.group() if found else f"`longhaul {words[1]}` ended with {code}: {last}", text
    return "ok", "", text


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--program", required=True, help="compute-sanitizer")
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--csv", default="sanitizer.csv")
    parser.add_argument("--archs", type=lambda text: text.split(","), default=MODELS)
    parser.add_argument("--tools", type=lambda text: text.split(","), default=TOOLS)
    parser.add_argument("--limit", type=float, default=250.0, help="most seconds of a program under a tool")
    parser.add_argument("--timeout", type=float, default=500.0, help="most seconds of all; a later call goes on")
    args = parser.parse_args()
    for word in set(args.tools) - set(TOOLS):
        parser.error(f"`{word}` is unknown; known are {', '.join(TOOLS)}")
    end = time.monotonic() + args.timeout
    table = common.Table(args.csv, COLUMNS, args.device)
    build = common.build_of(*common.binaries())
    done = {(row["arch"], row["products"], row["tool"]) for row in table.rows() if (row["build"], row["result"]) == (build, "ok")}
    pairs = [(arch, products) for arch in args.archs for products in ("float32", TENSOR_CORES.get(arch)) if products]
    wrong = left = 0
    for arch, products in pairs:
        tools = [tool for tool in args.tools if (arch, products, tool) not in done]
        plain = None
        for tool in tools:
            if time.monotonic() > end:
                left += 1
                continue
            begun = time.monotonic()
            if plain is None:
                # Kernels are compiled outside the tools.
                with tempfile.TemporaryDirectory() as folder:
                    plain = look(arch, products, "", args, end, folder)
            if plain[0] == "ok":
                with tempfile.TemporaryDirectory() as folder:
                    result, detail, text = look(arch, products, tool, args, end, folder)
            elif plain[0] == "left":
                result, detail, text = plain
            else:
                result, detail, text = "failed", f"without a tool: {plain[1]}", plain[2]
            if result == "left":
                plain, left = None, left + 1
                continue
            spent = round(time.monotonic() - begun, 1)
            table.row(arch=arch, products=products, tool=tool, build=build, result=result, seconds=spent, detail=detail)
            print(f"  {arch}, {products}, {tool}: {result} ({spent:.0f} s) {detail}", flush=True)
            log = pathlib.Path(args.csv).with_name(f"sanitizer-{arch}-{products}-{tool}.txt")
            log.unlink(missing_ok=True)
            if result != "ok":
                wrong += 1
                log.write_text("\n".join(text.splitlines()[:200]) + "\n")
    if left:
        print(f"  {left} rows are LEFT: call again to go on")
    raise SystemExit(1 if wrong or left else 0)


if __name__ == "__main__":
    main()
