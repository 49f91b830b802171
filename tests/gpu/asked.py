"""What is asked of a card: sizes, ways and ratios. Plain data, which what measures and what sums up share."""

# Training of small models: every model at every width, in every way to multiply.
ARCHS = ["transformer", "mamba2", "mamba", "lstm", "rwkv4", "griffin"]
WIDTHS = [64, 128, 256]
PRODUCTS = ["tf32", "float32"]
# What Longhaul is to be, times plain PyTorch, in each of its forms.
FORMS = {"eager": 5.0, "compile": 2.0, "graph": None}

# Operations by themselves: lengths, and by operation N, head widths, products, longest length, and by peer the least ratio (None
# where its rows are for information) and the longest length at which it is timed.
LENGTHS = [2048, 8192, 32768, 65536]
ANY = 1 << 30
OPERATIONS = {
    # PyTorch's keeps [B, T, d_inner, N] several times: 8 GiB each at 8,192.
    "scan": (16, (64,), "float32", ANY, {"mamba_ssm": (0.9, ANY), "torch": (5.0, 8192)}),
    "ssd": (128, (64,), "tf32", ANY, {"mamba_ssm": (0.9, ANY), "fla": (0.9, ANY)}),
    # PyTorch's own choice, and two of those among which it chooses.
    "attention": (16, (64, 128), "bf16", 16384, {"torch": (0.6, ANY), "torch, flash": (None, ANY), "torch, cuDNN": (None, ANY)}),
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
    """The (length, head width) at which an operation is timed."""
    _, widths, _, longest, _ = OPERATIONS[operation]
    return [(length, width) for width in widths for length in LENGTHS if length <= longest]


def head_dim(operation, width):
    """The head width as a row has it."""
    return "" if operation == "scan" else str(width)
