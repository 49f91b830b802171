"""`longhaul check` on every plugin, as checks.csv.

Usage: checks.py [--device cuda:0] [--csv FILE] [--only WORD]... [--timeout 900] LIBRARY...

Exits with 1 where a check fails or a plugin cannot be checked."""

import argparse
import json
import pathlib
import subprocess

import common

COLUMNS = ["library", "architecture", "check", "result", "worst", "detail"]


def lines_of(library, args):
    """The JSON lines of one library, and what it said when it gave none."""
    command = [common.longhaul(), "check", library, "--device", args.device, "--json"]
    for word in args.only or ():
        command += ["--only", word]
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=args.timeout)
    except subprocess.TimeoutExpired as error:
        text = (error.stdout or b"").decode(errors="replace")
        return [json.loads(line) for line in text.splitlines() if line.endswith("}")], f"took more than {args.timeout:.0f} s"
    lines = [json.loads(line) for line in ran.stdout.splitlines() if line.startswith("{")]
    failed = any(not line["passed"] for line in lines)
    said = ran.stderr.strip()[-300:] or f"exit code {ran.returncode}"
    return lines, said if ran.returncode != 0 and not failed else ""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("libraries", nargs="+", metavar="LIBRARY")
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--csv", default="checks.csv")
    parser.add_argument("--only", action="append", metavar="WORD")
    parser.add_argument("--timeout", type=float, default=900.0, help="most seconds of a plugin")
    args = parser.parse_args()
    table = common.Table(args.csv, COLUMNS, args.device)
    wrong = 0
    for path in args.libraries:
        name = pathlib.Path(path).stem.removeprefix("lib")
        lines, broken = lines_of(path, args)
        results = []
        for line in lines:
            result = "skipped" if line["skipped"] else "ok" if line["passed"] else "failed"
            results.append(result)
            if result == "failed":
                print(f"  {line['architecture']}, {line['check']}: {line['detail']}")
            values = {name: line[name] for name in ("architecture", "check", "worst", "detail")}
            table.row(library=name, result=result, **values)
        if broken or not lines:
            print(f"  {name}: {broken or 'no check was made'}")
            table.row(library=name, result="failed", detail=broken or "no check was made")
        failed = results.count("failed")
        wrong += failed + bool(broken or not lines)
        print(f"{name}: {results.count('ok')} ok, {failed} failed, {results.count('skipped')} skipped", flush=True)
    raise SystemExit(1 if wrong else 0)


if __name__ == "__main__":
    main()
