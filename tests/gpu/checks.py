"""`longhaul check` on every plugin, as checks.csv.

Usage: checks.py [--device cuda:0] [--csv FILE] [--only WORD]... [--archs A,B] [--timeout 500] LIBRARY...

Rows are written as they come. A check that is `ok` or `skipped` in the table for the same build is not made again, so
that a call that ended at its limit is gone on with by the next. Exits with 1 where a check fails, a plugin cannot be
checked, or checks are left."""

import argparse
import json
import pathlib
import subprocess
import tempfile
import threading
import time

import common

COLUMNS = ["library", "build", "architecture", "check", "result", "worst", "detail"]


def chosen(library, archs):
    """Whether a library has one of these architectures: `rwkv` has rwkv4."""
    return archs is None or any(arch == library or arch.rstrip("0123456789") == library for arch in archs)


class Library:
    """One plugin's checks, and what the table has of them."""

    def __init__(self, path, table, args):
        self.path, self.table, self.args = path, table, args
        self.name = pathlib.Path(path).stem.removeprefix("liblonghaul_")
        self.build = common.build_of(common.longhaul(), path)
        done = [row for row in table.rows() if row["build"] == self.build and row["result"] in ("ok", "skipped")]
        self.done = sorted({f"{row['architecture']}/{row['check']}" for row in done if row["library"] == self.name})
        self.results = []

    def row(self, line):
        result = "skipped" if line["skipped"] else "ok" if line["passed"] else "failed"
        self.results.append(result)
        if result == "failed":
            print(f"  {line['architecture']}, {line['check']}: {line['detail']}", flush=True)
        values = {name: line[name] for name in ("architecture", "check", "worst", "detail")}
        self.table.row(library=self.name, build=self.build, result=result, **values)

    def check(self, seconds):
        """Makes what is left within some seconds. Why nothing more is known, or an empty text; whether it was late."""
        command = [common.longhaul(), "check", self.path, "--device", self.args.device, "--json"]
        for word in self.args.only or ():
            command += ["--only", word]
        for pair in self.done:
            command += ["--skip", pair]
        late = threading.Event()
        with tempfile.TemporaryFile("w+") as said, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said, text=True) as ran:

            def stop():
                late.set()
                ran.kill()

            timer = threading.Timer(seconds, stop)
            timer.start()
            try:
                for line in ran.stdout:
                    if line.startswith("{") and line.endswith("}\n"):
                        self.row(json.loads(line))
                code = ran.wait()
            finally:
                timer.cancel()
                ran.kill()
            if late.is_set():
                return "", True
            said.seek(0)
            words = said.read().strip()[-300:]
        if code != 0 and "failed" not in self.results:
            return words or f"exit code {code}", False
        return ("" if self.results or self.done else "no check was made"), False


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("libraries", nargs="+", metavar="LIBRARY")
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--csv", default="checks.csv")
    parser.add_argument("--only", action="append", metavar="WORD")
    parser.add_argument("--archs", type=lambda text: text.split(","), help="libraries of these architectures only")
    parser.add_argument("--timeout", type=float, default=500.0, help="most seconds of all; a later call goes on")
    args = parser.parse_args()
    end = time.monotonic() + args.timeout
    table = common.Table(args.csv, COLUMNS, args.device)
    libraries = [Library(path, table, args) for path in args.libraries]
    libraries = [library for library in libraries if chosen(library.name, args.archs)]
    if not libraries:
        parser.error(f"no library has one of the architectures {', '.join(args.archs)}")
    wrong = 0
    for library in libraries:
        left = end - time.monotonic()
        broken, late = library.check(left) if left > 0 else ("", True)
        if broken:
            print(f"  {library.name}: {broken}")
            table.row(library=library.name, build=library.build, result="failed", detail=broken)
        results = library.results
        wrong += results.count("failed") + bool(broken) + late
        counts = ", ".join(f"{results.count(word)} {word}" for word in ("ok", "failed", "skipped"))
        known = f", {len(library.done)} known from before" if library.done else ""
        print(f"{library.name}: {counts}{known}{', the rest is LEFT: call again to go on' if late else ''}", flush=True)
    raise SystemExit(1 if wrong else 0)


if __name__ == "__main__":
    main()
