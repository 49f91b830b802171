"""Holds the tokens of RULER's prompts against transformers' tokenizer of the same checkpoint, token by token, and with
`--chat-template` what stands around them against `apply_chat_template`.
Usage: tokens.py PROGRAM CHECKPOINT [--chat-template] [LENGTH..], in an environment with transformers."""

import json, os, subprocess, sys, tempfile

from transformers import AutoTokenizer

program, folder, rest = sys.argv[1], sys.argv[2], sys.argv[3:]
chat = "--chat-template" in rest
lengths = [int(length) for length in rest if length.isdigit()] or [1024, 4096]
tokenizer = AutoTokenizer.from_pretrained(folder)
templated = lambda text: tokenizer.apply_chat_template(
    [{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True)
bad = 0
for task in ["niah_single_1", "niah_single_2", "niah_single_3", "vt", "cwe", "fwe"]:
    for length in lengths:
        with tempfile.TemporaryDirectory() as out:
            out = os.path.join(out, "samples.jsonl")
            subprocess.run([program, "ruler", "generate", "--task", task, "--length", str(length), "--samples", "20",
                            "--tokenizer", folder, "--tokens", "--out", out] + chat * ["--chat-template"],
                           check=True, stdout=subprocess.DEVNULL)
            rows = [json.loads(line) for line in open(out)]
        same = frames = 0
        for row in rows:
            # A template writes its special tokens itself.
            wanted = tokenizer(row["input"] + row["answer_prefix"], add_special_tokens=not chat)["input_ids"]
            same += wanted == row["tokens"]
            if chat:
                before, after = templated("MESSAGE").split("MESSAGE")
                message = row["input"][len(before):len(row["input"]) - len(after)]
                frames += templated(message) == row["input"]
        right = same == len(rows) and frames == chat * len(rows)
        bad += not right
        print(f"{task:14} {length:6}   {same} of {len(rows)} the same tokens, {len(rows[0]['tokens'])} in the first"
              f"{f', {frames} in the template' if chat else ''}{'' if right else '   DIFFERS'}", flush=True)
sys.exit(bad > 0)
