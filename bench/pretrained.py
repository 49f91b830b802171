"""A model of SmolLM2-135M's shape on the same two cores, in turn, beside transformers: tokens a second that are read
(4,096 of them) and decoded (128 after 512), and Longhaul's memory over its weights and state.

Usage: pretrained.py [--rounds N]

Needs a built Longhaul (target/release/longhaul, or LONGHAUL) and, in the Python that runs this, torch and transformers;
bench/pretrained.sh makes such a Python. Weights are random: they do not change the speed. The peer is
LlamaForCausalLM in float32 with fused attention and a head for the last position only; its time to decode is
that of `generate` with 129 new tokens less that with one. Each round times the peer, then Longhaul; figures are
medians of the rounds. Beside them stand what both reach in GFLOP/s of products and GB/s of weights."""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import time
import warnings

warnings.filterwarnings("ignore")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import torch
import transformers as tf

D, LAYERS, VOCAB, HEADS, KV_HEADS, HEAD_DIM, HIDDEN = 576, 30, 49152, 9, 3, 64, 1536
READ, PROMPT, NEW = 4096, 512, 128
ROOT = pathlib.Path(__file__).resolve().parent.parent
LONGHAUL = os.environ.get("LONGHAUL", str(ROOT / "target/release/longhaul"))
ARCH = f"transformer:head_dim={HEAD_DIM},heads={HEADS},kv_heads={KV_HEADS},mlp_hidden={HIDDEN},tied=true"


def seconds(call):
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


def peer():
    """Functions that time the peer once, in tokens a second."""
    config = tf.LlamaConfig(
        vocab_size=VOCAB, hidden_size=D, num_hidden_layers=LAYERS, num_attention_heads=HEADS, num_key_value_heads=KV_HEADS,
        head_dim=HEAD_DIM, intermediate_size=HIDDEN, max_position_embeddings=8192, tie_word_embeddings=True,
    )
    model = tf.LlamaForCausalLM(config).eval()
    tokens = torch.randint(0, VOCAB, (1, READ))

    def read():
        with torch.inference_mode():
            return READ / seconds(lambda: model(input_ids=tokens, logits_to_keep=1))

    def decode():
        def new(count):
            with torch.inference_mode():
                return seconds(lambda: model.generate(tokens[:, :PROMPT], max_new_tokens=count, min_new_tokens=count, do_sample=False))

        once = new(1)
        return NEW / (new(NEW + 1) - once)

    return read, decode


def ours(mode, length):
    command = [LONGHAUL, "bench", "--arch", ARCH, "--mode", mode, "--batch", "1", "--length", str(length), "--prompt", str(PROMPT)]
    command += ["--d-model", str(D), "--layers", str(LAYERS), "--vocab", str(VOCAB), "--threads", "2", "--seconds", "1"]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(2)
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, transformers {tf.__version__}, {args.rounds} rounds", flush=True)
    read, decode = peer()
    read(), decode()
    # Multiplications and additions of a token: every weight but the embedding's, and half of the keys on average.
    weights = LAYERS * D * ((2 * HEADS + 2 * KV_HEADS) * HEAD_DIM + 3 * HIDDEN)
    operations = 2 * weights + 2 * 2 * LAYERS * HEADS * HEAD_DIM * (READ + 1) / 2
    rows = [
        ("read", f"{READ} tokens", read, ("feed", READ), lambda rate: f"{rate * operations / 1e9:.0f} GFLOP/s", 1.2),
        ("decode", f"{NEW} after {PROMPT}", decode, ("step", NEW), lambda rate: f"{rate * 4 * (weights + VOCAB * D) / 1e9:.1f} GB/s", 2),
    ]
    print("| mode | tokens | transformers, tokens/s | ours | ratio | lowest, highest | asked |\n|---|---|---|---|---|---|---|")
    memory = []
    for mode, what, timed, call, reached, asked in rows:
        pairs = []
        for _ in range(args.rounds):
            theirs = timed()
            answer = ours(*call)
            pairs.append((theirs, answer["tokens_per_second"]))
        held = 4 * answer["parameters"] + answer["state_bytes"]
        memory.append(f"{mode}: {answer['peak_memory_bytes'] / 1e6:.0f} MB at the peak, {held / 1e6:.0f} MB of weights and state, {answer['peak_memory_bytes'] / held:.2f}x (asked: 1.3x)")
        ratios = sorted(ours / theirs for theirs, ours in pairs)
        theirs, our = (statistics.median(column) for column in zip(*pairs))
        print(f"| {mode} | {what} | {theirs:,.1f} ({reached(theirs)}) | {our:,.1f} ({reached(our)}) | {statistics.median(ratios):.2f}x | {ratios[0]:.2f}x, {ratios[-1]:.2f}x | {asked}x |", flush=True)
    print("\n".join(memory))


if __name__ == "__main__":
    main()
