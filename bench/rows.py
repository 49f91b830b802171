"""The rows of the speed table: which of our models stands beside which peer, and the words that time it.

`rows.py` prints each row's words for `longhaul bench`, a line each: what bench/profile.sh goes through."""

D, LAYERS, VOCAB = 128, 2, 512

OURS = {
    "transformer": "transformer",
    "mamba2": "mamba2",
    "mamba": "mamba",
    "rwkv4": "rwkv4:norm=layernorm,embedding_norm=true,mlp_hidden=512",
    "griffin": "griffin:pattern=recurrent+attention,heads=4,head_dim=32,window=128,mlp_hidden=384,mlp_bias=true,tied=true",
    "qwen3-next": "qwen3-next:attention.head_dim=64,attention.kv_heads=1,gated-deltanet.head_dim=64,gated-deltanet.value_heads=4,gated-deltanet.expand_v=1",
    "mlstm": "mlstm:mlp_hidden=384,logit_cap=30",
    "lstm": "lstm",
}
# What Longhaul is to be at least, times the peer.
ASKED = {
    "train": {"transformer": 1.8, "mamba2": 4, "mamba": 15, "rwkv4": 8, "griffin": 5, "qwen3-next": 8, "mlstm": 8, "lstm": 1.5},
    "feed": {"transformer": 1.6, "mamba2": 5.5, "mamba": 25, "rwkv4": 20, "griffin": 8, "mlstm": 5},
    "step": {"transformer": 15, "mamba2": 15, "mamba": 15, "rwkv4": 15, "griffin": 15},
}
# Sequences and tokens of each.
SHAPES = {"train": (16, 256), "feed": (1, 4096), "step": (1, 256)}


def words(name, mode):
    """What `longhaul bench` is told, threads apart."""
    batch, length = SHAPES[mode]
    sizes = {"batch": batch, "length": length, "d-model": D, "layers": LAYERS, "vocab": VOCAB}
    options = [word for option, size in sizes.items() for word in (f"--{option}", str(size))]
    return ["--arch", OURS[name], "--mode", mode, *options]


if __name__ == "__main__":
    for mode, rows in ASKED.items():
        for name in rows:
            print(*words(name, mode))
