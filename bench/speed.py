"""Longhaul beside what people use today, on the same two cores in one call: tokens a second and their ratio.

Usage: speed.py [train|feed|step]... [--only NAME] [--rounds N] [--csv FILE]

Needs a built Longhaul (target/release/longhaul, or LONGHAUL) and, in the Python that runs this, torch, transformers
and mambapy; bench/speed.sh makes such a Python. B 16, T 256 for training (next-token loss at every position, float32,
AdamW), B 1, T 4096 for feeding, B 1 for single steps; D 128, 2 layers, vocabulary 512. Each round times the peer, then
Longhaul; the median ratio of the rounds is the figure. Models have the same blocks and sizes, and both parameter
counts are printed."""

import argparse
import csv
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time
import warnings

warnings.filterwarnings("ignore")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import torch
import torch.nn.functional as F
import transformers as tf
from torch import nn

from rows import ASKED, D, LAYERS, SHAPES, VOCAB, words

ROOT = pathlib.Path(__file__).resolve().parent.parent
LONGHAUL = os.environ.get("LONGHAUL", str(ROOT / "target/release/longhaul"))


class Block(nn.Module):
    """Pre-norm attention with rotary positions, then a gated MLP."""

    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = nn.RMSNorm(D), nn.RMSNorm(D)
        self.qkv, self.out = nn.Linear(D, 3 * D, bias=False), nn.Linear(D, D, bias=False)
        self.gate, self.up = nn.Linear(D, 4 * D, bias=False), nn.Linear(D, 4 * D, bias=False)
        self.down = nn.Linear(4 * D, D, bias=False)

    def forward(self, x):
        batch, length, _ = x.shape
        q, k, v = (z.view(batch, length, 2, 64).transpose(1, 2) for z in self.qkv(self.norm1(x)).chunk(3, -1))
        y = F.scaled_dot_product_attention(rotate(q), rotate(k), v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).reshape(batch, length, D))
        y = self.norm2(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))


ANGLES = {}


def rotate(x):
    length, width = x.shape[-2:]
    if length not in ANGLES:
        frequencies = 10_000.0 ** (-torch.arange(0, width, 2) / width)
        angles = torch.outer(torch.arange(length), frequencies)
        ANGLES[length] = angles.cos(), angles.sin()
    cos, sin = ANGLES[length]
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


class Around(nn.Module):
    """Embedding and head around a body of hidden states."""

    def __init__(self, body, norm=False):
        super().__init__()
        self.embedding, self.body = nn.Embedding(VOCAB, D), body
        self.norm = nn.RMSNorm(D) if norm else nn.Identity()
        self.head = nn.Linear(D, VOCAB, bias=False)

    def forward(self, tokens):
        x = self.body(self.embedding(tokens))
        return self.head(self.norm(x[0] if isinstance(x, tuple) else x))


def mambapy():
    from mambapy.mamba import Mamba, MambaConfig

    return Around(Mamba(MambaConfig(d_model=D, n_layers=LAYERS, d_state=16, pscan=True)))


def of_transformers(model, config, **options):
    return lambda: model(config(vocab_size=VOCAB, hidden_size=D, num_hidden_layers=LAYERS, **options))


LLAMA = of_transformers(tf.LlamaForCausalLM, tf.LlamaConfig, num_attention_heads=2, num_key_value_heads=2, intermediate_size=4 * D, max_position_embeddings=8192)
MAMBA = of_transformers(tf.MambaForCausalLM, tf.MambaConfig, state_size=16, tie_word_embeddings=False)
MAMBA2 = of_transformers(tf.Mamba2ForCausalLM, tf.Mamba2Config, state_size=64, head_dim=32, num_heads=8, n_groups=1, chunk_size=64, expand=2)
QWEN3_NEXT = of_transformers(tf.Qwen3NextForCausalLM, tf.Qwen3NextConfig, num_attention_heads=2, num_key_value_heads=1, head_dim=64, linear_num_key_heads=2, linear_num_value_heads=4, linear_key_head_dim=64, linear_value_head_dim=64, intermediate_size=4 * D, num_experts=0, layer_types=["linear_attention", "full_attention"])
RWKV4 = of_transformers(tf.RwkvForCausalLM, tf.RwkvConfig, attention_hidden_size=D, context_length=4096)
GRIFFIN = of_transformers(tf.RecurrentGemmaForCausalLM, tf.RecurrentGemmaConfig, num_attention_heads=4, num_key_value_heads=1, head_dim=32, lru_width=D, attention_window_size=128, intermediate_size=6 * D, block_types=["recurrent", "attention"])
XLSTM = lambda mode: of_transformers(tf.xLSTMForCausalLM, tf.xLSTMConfig, num_heads=4, mode=mode)

# Each model's peer, and how to make it.
PEERS = {
    "train": {
        "transformer": ("PyTorch, fused attention", lambda: Around(nn.Sequential(*[Block() for _ in range(LAYERS)]), norm=True)),
        "mamba2": ("transformers Mamba2", MAMBA2),
        "mamba": ("mambapy, parallel scan", mambapy),
        "rwkv4": ("transformers Rwkv", RWKV4),
        "griffin": ("transformers RecurrentGemma", GRIFFIN),
        "qwen3-next": ("transformers Qwen3Next", QWEN3_NEXT),
        "mlstm": ("transformers xLSTM", XLSTM("train")),
        "lstm": ("PyTorch, fused LSTM", lambda: Around(nn.LSTM(D, D, num_layers=LAYERS, batch_first=True))),
    },
    "feed": {
        "transformer": ("transformers Llama", LLAMA),
        "mamba2": ("transformers Mamba2", MAMBA2),
        "mamba": ("transformers Mamba", MAMBA),
        "rwkv4": ("transformers Rwkv", RWKV4),
        "griffin": ("transformers RecurrentGemma", GRIFFIN),
        "mlstm": ("transformers xLSTM", XLSTM("inference")),
    },
}
PEERS["step"] = {name: peer for name, peer in PEERS["feed"].items() if name in ASKED["step"]}


def logits_of(model, tokens):
    result = model(tokens) if isinstance(model, Around) else model(input_ids=tokens, use_cache=False)
    return getattr(result, "logits", result)


def peer_speed(model, mode):
    """A function that times the peer once and returns tokens a second."""
    batch, length = SHAPES[mode]
    tokens = torch.randint(0, VOCAB, (batch, length))
    if mode == "train":
        optimizer = torch.optim.AdamW(model.parameters(), fused=True)

        def once():
            logits = logits_of(model, tokens)
            loss = F.cross_entropy(logits[:, :-1].reshape(-1, VOCAB), tokens[:, 1:].reshape(-1))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    elif mode == "feed":
        model.eval()

        def once():
            with torch.inference_mode():
                logits_of(model, tokens)
    else:
        model.eval()
        length = 128

        def once():
            with torch.inference_mode():
                model.generate(tokens[:, :64], max_new_tokens=length, min_new_tokens=length, do_sample=False)

    once()

    def timed():
        count, begun = 0, time.perf_counter()
        while count == 0 or time.perf_counter() - begun < 3:
            once()
            count += 1
        return batch * length * count / (time.perf_counter() - begun)

    return timed


def our_speed(name, mode):
    command = [LONGHAUL, "bench", *words(name, mode), "--threads", "2"]
    answer = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return answer["tokens_per_second"], answer["parameters"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("modes", nargs="*", default=["train", "feed", "step"])
    parser.add_argument("--only", action="append")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--csv")
    args = parser.parse_args()
    torch.set_num_threads(2)
    torch.manual_seed(0)
    rows, missed = [], 0
    print(f"torch {torch.__version__}, transformers {tf.__version__}")
    print("| mode | model | peer | parameters, peer and ours | peer, tokens/s | ours | ratio | asked |")
    print("|---|---|---|---|---|---|---|---|")
    for mode in args.modes:
        for name, asked in ASKED[mode].items():
            if args.only and name not in args.only:
                continue
            peer, make = PEERS[mode][name]
            model = make()
            theirs_parameters = sum(parameter.numel() for parameter in model.parameters())
            timed = peer_speed(model, mode)
            pairs = []
            for _ in range(args.rounds):
                theirs = timed()
                ours, parameters = our_speed(name, mode)
                pairs.append((theirs, ours))
            ratio = statistics.median(ours / theirs for theirs, ours in pairs)
            theirs, ours = (statistics.median(column) for column in zip(*pairs))
            missed += ratio < asked
            print(f"| {mode} | {name} | {peer} | {theirs_parameters:,} {parameters:,} | {theirs:,.0f} | {ours:,.0f} | {ratio:.2f}x | {asked}x |", flush=True)
            rows.append([mode, name, peer, theirs_parameters, parameters, round(theirs), round(ours), round(ratio, 3), asked])
    if args.csv:
        with open(args.csv, "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow("mode,model,peer,peer_parameters,parameters,peer_tokens_per_second,tokens_per_second,ratio,asked".split(","))
            writer.writerows(rows)
    print(f"{len(rows)} rows, {missed} below what was asked")
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
