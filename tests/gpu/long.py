"""A long read in constant memory: one model, one sequence, several lengths; what its state and the card's memory were.

Usage: long.py [--device cuda:0] [--csv FILE] [--lengths 65536,1048576] [--arch mamba2] [--d-model 1024] [--layers 48]
               [--vocab 50280] [--products tf32]

The defaults are the shape of mamba2-370m reading a million tokens. Memory of the card is what nvidia-smi (or PyTorch) says is
in use at most, less what was in use before. Exits with 1 where a length fails, where state_bytes differ between lengths, or where the card's
memory at the longest is more than 5 % above that at the shortest."""

import argparse
import threading
import time

import common
from asked import READ_GROWTH, READS

COLUMNS = (
    "arch,d_model,layers,vocab,batch,length,products,parameters,tokens_per_second,state_bytes,"
    "device_memory_bytes,host_memory_bytes,status,reason"
).split(",")


def used(device):
    """Bytes in use on the card, or nothing where that is unknown."""
    if device == "cpu":
        return None
    index = device.partition(":")[2] or "0"
    text = common.output_of(["nvidia-smi", "-i", index, "--query-gpu=memory.used", "--format=csv,noheader,nounits"])
    if text.isdigit():
        return int(text) << 20
    try:
        import torch

        free, total = torch.cuda.mem_get_info(int(index))
        return total - free
    except Exception:  # No PyTorch, or one without this card.
        return None


class Watch:
    """The most memory in use while the block ran, less that before."""

    def __init__(self, device):
        self.device, self.before, self.most, self.done = device, used(device), None, threading.Event()

    def look(self):
        while not self.done.is_set():
            now = used(self.device)
            if now is not None and self.before is not None:
                self.most = max(self.most or 0, now - self.before)
            time.sleep(0.2)

    def __enter__(self):
        self.thread = threading.Thread(target=self.look, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.done.set()
        self.thread.join()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--csv", default="long.csv")
    parser.add_argument("--lengths", type=lambda text: [int(n) for n in text.split(",")], default=READS)
    parser.add_argument("--arch", default="mamba2")
    parser.add_argument("--d-model", type=int, default=1024)
    parser.add_argument("--layers", type=int, default=48)
    parser.add_argument("--vocab", type=int, default=50280)
    parser.add_argument("--products", default="tf32")
    parser.add_argument("--timeout", type=float, default=550.0, help="most seconds of a length")
    args = parser.parse_args()
    table = common.Table(args.csv, COLUMNS, args.device)
    model = dict(d_model=args.d_model, layers=args.layers, vocab=args.vocab, batch=1)
    states, memories, wrong = [], [], 0
    for length in args.lengths:
        row = dict(model, arch=args.arch, length=length, products=args.products)
        try:
            with Watch(args.device) as watch:
                line = common.bench(
                    args.arch, "feed", args.device, args.products, args.timeout, length=length, seconds=0.1, **model
                )
        except RuntimeError as error:
            wrong += 1
            print(f"{length} tokens: {error}", flush=True)
            table.row(**row, status="failed", reason=common.reason(error))
            continue
        states.append(line["state_bytes"])
        if watch.most is not None:
            memories.append(watch.most)
        for name in ("parameters", "tokens_per_second", "state_bytes"):
            row[name] = line[name]
        table.row(**row, device_memory_bytes=watch.most, host_memory_bytes=line["peak_memory_bytes"], status="ok")
        card = "unknown" if watch.most is None else f"{watch.most / 2**20:,.0f} MiB"
        speed = f"{line['tokens_per_second']:,.0f} tokens/s"
        print(f"{length} tokens: {speed}, state {line['state_bytes']:,} bytes, card {card}", flush=True)
    if len(set(states)) > 1:
        wrong += 1
        print(f"the state grows with the length: {states} bytes")
    if len(memories) > 1 and memories[-1] > READ_GROWTH * memories[0]:
        wrong += 1
        print(f"the card's memory grows with the length: {memories} bytes")
    raise SystemExit(1 if wrong else 0)


if __name__ == "__main__":
    main()
