"""What the scripts share: calling Longhaul, saying where a figure was measured, and writing rows as they come."""

import contextlib
import csv
import datetime
import functools
import hashlib
import json
import os
import pathlib
import signal
import statistics
import subprocess
import time

HERE = pathlib.Path(__file__).resolve().parent

# Columns in front of every table.
WHERE = ["card", "driver", "cuda", "torch", "longhaul", "date"]


def longhaul():
    """The program: LONGHAUL, or the one of a packed folder or of this checkout."""
    places = [os.environ.get("LONGHAUL"), HERE / "longhaul", HERE.parent.parent / "target/release/longhaul"]
    for place in places:
        if place and os.access(place, os.X_OK):
            return str(place)
    raise SystemExit("no longhaul program; set LONGHAUL to its path, or run in a folder that tests/gpu/pack.sh made")


def binaries():
    """The program and the plugins beside it."""
    program = pathlib.Path(longhaul())
    return [program, *sorted(program.parent.glob("liblonghaul_*.so"))]


@functools.cache
def build_of(*paths):
    """The first 16 digits of the SHA-256 of files, one after another: what a row was measured with."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(pathlib.Path(path).read_bytes())
    return digest.hexdigest()[:16]


def call(arguments, products="float32", timeout=600):
    """Longhaul's standard output; RuntimeError with its last words where it fails."""
    return command([longhaul(), *arguments], products, timeout)


def command(words, products="float32", timeout=600):
    """A command's standard output; RuntimeError with its last words where it fails."""
    environment = dict(os.environ, LONGHAUL_PRODUCTS=products)
    words = [str(word) for word in words]
    try:
        ran = subprocess.run(words, capture_output=True, text=True, timeout=timeout, env=environment)
    except subprocess.TimeoutExpired:
        name = pathlib.Path(words[0]).name
        raise RuntimeError(f"`{name} {' '.join(words[1:])}` took more than {timeout} s") from None
    if ran.returncode != 0:
        words = ran.stderr.strip().splitlines() or [f"exit code {ran.returncode}"]
        raise RuntimeError(" / ".join(words[-3:])[:500])
    return ran.stdout


def bench(arch, mode, device, products="float32", timeout=600, **options):
    """The line of `longhaul bench` as a dictionary."""
    arguments = ["bench", "--arch", arch, "--mode", mode, "--device", device]
    for name, value in options.items():
        arguments += [f"--{name.replace('_', '-')}", value]
    return json.loads(call(arguments, products, timeout))


def output_of(command):
    """Standard output of a command, or nothing where it cannot run."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=60).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""


def card_of(device):
    """A card's name and its driver's version, from nvidia-smi or else from Longhaul; unknown is empty."""
    index = device.partition(":")[2] or "0"
    line = output_of(["nvidia-smi", "-i", index, "--query-gpu=name,driver_version", "--format=csv,noheader"])
    card, _, driver = line.partition(", ")
    if not card:
        lines = [line.split(None, 1) for line in output_of([longhaul(), "devices"]).splitlines()]
        card = next((words[1].split(",")[0] for words in lines if len(words) == 2 and words[0] == device), "")
    return card, driver


def where(device):
    """The values of WHERE; unknown ones are empty."""
    facts = dict.fromkeys(WHERE, "")
    facts["date"] = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%MZ")
    facts["longhaul"] = output_of([longhaul(), "--version"]).removeprefix("longhaul ")
    if device == "cpu":
        facts["card"] = "cpu"
    else:
        facts["card"], facts["driver"] = card_of(device)
    try:
        import torch

        facts["torch"], facts["cuda"] = torch.__version__, torch.version.cuda or ""
    except ImportError:
        pass
    return facts


class Table:
    """A CSV file that has every row as soon as it is known. A file that is there is continued."""

    def __init__(self, path, columns, device):
        self.path, self.columns, self.where = pathlib.Path(path), WHERE + columns, where(device)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.exists() and self.path.stat().st_size > 0:
            with open(self.path, newline="") as file:
                if next(csv.reader(file)) != self.columns:
                    raise SystemExit(f"{path} has other columns; move it away, or name another folder with --out")
        else:
            self._append(self.columns)

    def rows(self):
        """The rows of this card, texts by column; of a cut last line nothing."""
        with open(self.path, newline="") as file:
            rows = [row for row in csv.DictReader(file) if None not in row.values()]
        return [row for row in rows if row["card"] == self.where["card"]]

    def row(self, **values):
        unknown = set(values) - set(self.columns)
        if unknown:
            raise ValueError(f"{self.path.name} has no column {sorted(unknown)}")
        values = {**self.where, **values}
        self._append(["" if values.get(name) is None else values[name] for name in self.columns])

    def _append(self, cells):
        with open(self.path, "a", newline="") as file:
            csv.writer(file).writerow(cells)


def seconds_of(once, seconds, synchronize, least=3):
    """The median time of a call: rounds of calls, each between two synchronisations, for at least `seconds`. Calls of a
    round are not waited for one by one, as a training loop would not either."""
    once()
    synchronize()
    begin = time.perf_counter()
    once()
    synchronize()
    alone = max(time.perf_counter() - begin, 1e-6)
    calls = max(1, min(1000, int(seconds / 10 / alone)))
    rounds, start = [], time.perf_counter()
    while len(rounds) < least or time.perf_counter() - start < seconds:
        begin = time.perf_counter()
        for _ in range(calls):
            once()
        synchronize()
        rounds.append((time.perf_counter() - begin) / calls)
    return statistics.median(rounds)


@contextlib.contextmanager
def time_limit(seconds):
    """TimeoutError where the block takes longer."""

    def late(*_):
        raise TimeoutError(f"took more than {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def synchronizer(device):
    """What waits for a device's work; PyTorch uses that device from here on."""
    import torch

    if device != "cpu":
        torch.cuda.set_device(device)
    return (lambda: None) if device == "cpu" else torch.cuda.synchronize


def precision(products):
    """Lets PyTorch multiply as LONGHAUL_PRODUCTS says.

    Not by the newer `fp32_precision`: parts of torch.compile read the older switches, which raise an error once the newer
    ones were set."""
    import torch

    torch.set_float32_matmul_precision("high" if products == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = products == "tf32"


def precision_error(products, device, compiled=True):
    """Why PyTorch does not multiply as asked, or an empty text: one product, compiled or not, against float64."""
    import torch

    precision(products)
    generator = torch.Generator().manual_seed(1)
    a, b = (torch.randn(512, 512, generator=generator).to(device) for _ in range(2))
    exact = a.double() @ b.double()
    try:
        product = torch.compile(torch.mm)(a, b) if compiled else torch.mm(a, b)
    except Exception as error:
        return f"PyTorch {torch.__version__} cannot multiply with products={products}: {reason(error)}"
    error = ((product.double() - exact).abs().max() / exact.abs().max()).item()
    # TF32 keeps 10 bits after the leading one, float32 23. A CPU has no TF32.
    low, high = (1e-5, 1e-2) if products == "tf32" and device != "cpu" else (0.0, 1e-5)
    if low <= error <= high:
        return ""
    return (
        f"with products={products}, PyTorch {torch.__version__} multiplies with a relative error of {error:.1e}, which is not "
        f"within {low:g} to {high:g}: the ratio would compare different work; try another version of PyTorch"
    )


def reason(error):
    """An exception in one line."""
    return f"{type(error).__name__}: {error}".replace("\n", " / ")[:300]


if __name__ == "__main__":
    # For run.sh: a device's card and driver on a line each.
    import sys

    print(*(("cpu", "") if sys.argv[1] == "cpu" else card_of(sys.argv[1])), sep="\n")
