"""Where a step's time goes, by operation: samples of `perf script` on standard input, told apart by their call stacks.

Usage: by_operation.py [NAME] < samples

bench/profile.sh makes the samples, of one thread, so that each stack names the operation it was taken in. A sample
belongs to the innermost operation of its stack, forward or backward, or to what stands around operations: the
optimizer, gradient sums, the session. Within it, it counts as a matrix product (the gemm crate and gemv.rs), as packing of
operands for one, as exponentials, as memory (copies, clearing), or as the operation's own loops. One Markdown table,
largest first; rows under half a percent are together in the last. Only the standard library is used."""

import collections
import re
import sys

OPERATION = re.compile(r"<(?:[\w:]*::)?(\w+)(?:<.*>)? as [\w:]*::Operation>::(\w+)")
# What stands around operations, by any frame of the stack. What is in none of these is the command's own: it starts, looks for
# plugins and hashes them, and is left out.
AROUND = [("optimizer", r"optimizer|adam"), ("gradient sums", r"Trainer::gradients"), ("session", r"longhaul_plugin_kit::engine")]
KINDS = [("packing", r"\bpack|::pack_"), ("products", r"\bgemm|::gemm|gemv|microkernel|::kernel::.*x\d"), ("exponentials", r"exp|sigmoid|tanh|softplus|silu"), ("memory", r"memset|memcpy|memmove|clear_page|page_fault|::fill")]
LEAST = 0.005


def samples(lines):
    """The call stack of each sample, innermost first."""
    stack = []
    for line in lines:
        line = line.strip()
        if line:
            stack.append(line)
        elif stack:
            yield stack
            stack = []
    if stack:
        yield stack


def place(stack):
    """Whose time a sample is, and the frames inside it."""
    for depth, frame in enumerate(stack):
        found = OPERATION.search(frame)
        if found:
            return (found[1], found[2]), stack[: depth + 1]
    text = " ".join(stack)
    name = next((name for name, pattern in AROUND if re.search(pattern, text)), None)
    return (name, ""), stack


def kind(frames):
    """What is done there: of the innermost frame that says so, up to the operation."""
    for frame in frames[:-1] or frames:
        for name, pattern in KINDS:
            if re.search(pattern, frame):
                return name
    return "own loops"


def main():
    counts = collections.defaultdict(collections.Counter)
    for stack in samples(sys.stdin):
        where, frames = place(stack)
        if where[0]:
            counts[where][kind(frames)] += 1
    total = sum(sum(kinds.values()) for kinds in counts.values())
    if not total:
        sys.exit("by_operation.py: no samples came: run bench/profile.sh, which records them")
    columns = [name for name in ["products", "packing", "exponentials", "memory", "own loops"] if any(kinds[name] for kinds in counts.values())]
    small = collections.Counter()
    for where in [where for where, kinds in counts.items() if sum(kinds.values()) < LEAST * total]:
        small.update(counts.pop(where))
    rows = sorted(counts.items(), key=lambda row: -sum(row[1].values()))
    rows += [(("others", ""), small)] if small else []
    rows.append((("all", ""), sum((kinds for _, kinds in rows), collections.Counter())))
    if len(sys.argv) > 1:
        print(f"{sys.argv[1]}, {total:,} samples, % of them\n")
    print("| operation | | all | " + " | ".join(columns) + " |")
    print("|---|---|--:|" + "--:|" * len(columns))
    for (name, pass_), kinds in rows:
        cells = [sum(kinds.values())] + [kinds[column] for column in columns]
        shown = [f"{100 * cell / total:.1f}" if cell else "" for cell in cells]
        print(f"| {name} | {pass_} | " + " | ".join(shown) + " |")


if __name__ == "__main__":
    main()
