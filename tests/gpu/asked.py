"""What is asked of a card: sizes, ways and ratios. Plain data, which what measures and what sums up share."""

# Training of small models: every model at every width, in every way to multiply.
ARCHS = ["transformer", "mamba2", "mamba", "lstm", "rwkv4", "griffin"]
WIDTHS = [64, 128, 256]
PRODUCTS = ["tf32", "float32"]
# What Longhaul is to be, times plain PyTorch, in each of its forms.
FORMS = {"eager": 5.0, "compile": 2.0, "graph": None}

# Operations by themselves: lengths, and by operation N, head widths, products, least ratio, least share of a copy's rate,
# longest length, peers.
LENGTHS = [2048, 8192, 32768, 65536]
OPERATIONS = {
    "scan": (16, (64,), "float32", 0.9, 0.7, 1 << 30, ("mamba_ssm",)),
    "ssd": (128, (64,), "tf32", 0.9, None, 1 << 30, ("mamba_ssm", "fla")),
    "attention": (16, (64, 128), "bf16", 0.6, None, 16384, ("torch",)),
}
PASSES = ["forward", "backward"]

# The long read: lengths, the model's least parameters, and how much the card's memory may grow between them.
READS = [65536, 1 << 20]
READ_PARAMETERS = 300_000_000
READ_GROWTH = 1.05


def label(arch, peer):
    """What a row calls the peer of an architecture."""
    return "PyTorch, cuDNN" if arch == "lstm" else peer


def shapes(operation):
    """The (length, head width as a row has it) that are asked of an operation."""
    widths, longest = OPERATIONS[operation][1], OPERATIONS[operation][5]
    return [(length, "" if operation == "scan" else str(width)) for width in widths for length in LENGTHS if length <= longest]
