"""`longhaul ruler` against lm-eval 0.4.13's generators and scores, with one tokenizer for both: byte pairs of
the words that the prompts have, made here. Prints a line a task and length; ends with 1 where something differs."""

import json, os, re, resource, subprocess, sys, time

program, folder, lengths = sys.argv[1], sys.argv[2], [int(n) for n in sys.argv[3:]] or [4096, 16384, 131072]

# The generators ask nltk for a file that only essays need, and the network for it.
os.environ["TQDM_DISABLE"] = "1"
import nltk
nltk.data.find = lambda *_: None
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast
from lm_eval.tasks.ruler import common_utils, cwe_utils, fwe_utils, niah_utils, prepare_niah, vt_utils

byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
plain = Tokenizer(models.BPE())
plain.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level])
words = [f" {word} {word.upper()} {word}-{word}" for word in prepare_niah.nouns + prepare_niah.adjs + prepare_niah.verbs]
prompts = [niah_utils.TEMPLATE, vt_utils.TEMPLATE, cwe_utils.TEMPLATE, fwe_utils.TEMPLATE, prepare_niah.NEEDLE]
noise = [prepare_niah.get_haystack("repeat")]
plain.train_from_iterator((words + prompts + noise) * 3, trainers.BpeTrainer(
    vocab_size=16384, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
plain.decoder = decoders.ByteLevel()
definition = os.path.join(folder, "tokenizer.json")
plain.save(definition)
tokenizer = PreTrainedTokenizerFast(tokenizer_object=plain)


def niah(haystack, key, value):
    def make(length, count):
        return prepare_niah.generate_samples(
            prepare_niah.get_haystack(haystack), tokenizer, max_seq_length=length, type_haystack=haystack,
            type_needle_k=key, type_needle_v=value, template=niah_utils.TEMPLATE, num_samples=count)
    return make


def vt(length, count):
    shot = vt_utils.sys_vartrack_w_noise_random(tokenizer, 1, 500, incremental=5)[0]
    return vt_utils.sys_vartrack_w_noise_random(tokenizer, count, length, icl_example=shot)


TASKS = {
    "niah_single_1": niah("repeat", "words", "numbers"),
    "niah_multikey_2": niah("needle", "words", "numbers"),
    "niah_multikey_3": niah("needle", "uuids", "uuids"),
    "vt": vt,
    "cwe": lambda length, count: cwe_utils.sys_word_pair_random(count, length, tokenizer),
    "fwe": lambda length, count: fwe_utils.sys_kwext(tokenizer, length, count),
}


def normal(task, text):
    """A prompt with its random parts replaced and repeated lines and words as one."""
    text = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "UUID", text)
    if task == "cwe":
        text = text[text.rindex("Below is"):]
        return re.sub(r"\n1\. .*?\nQuestion", "\nLIST\nQuestion", text, flags=re.S)
    if task == "fwe":
        return re.sub(r"coded words\. .*?\nQuestion", "coded words. LIST\nQuestion", text, flags=re.S)
    if task == "vt":
        text = text[text.rindex("Memorize and"):].replace("assgined", "assigned")
        text = re.sub(r"\d{5}", "VALUE", re.sub(r"\b[A-Z]{5}\b", "NAME", text))
        # lm-eval joins by spaces what RULER puts on lines.
        text = " ".join(text.split()).replace("VAR NAME =", "\nVAR NAME =").replace(noise[0], f"\n{noise[0]}\n")
        return "\n".join(sorted(set(line.strip() for line in text.split("\n"))))
    text = re.sub(r"\d{7}", "NUMBER", text)
    text = re.sub(r"for [\w' -]+? (is: |mentioned)", r"for KEY \1", text)
    return "\n".join(sorted(set(text.split("\n"))))


def processor_time(arguments):
    """What a command says, and the processor time that it takes, in seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    said = subprocess.run(arguments, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return said, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def ours(task, length, count):
    path = os.path.join(folder, f"{task}-{length}.jsonl")
    took = []
    # The start, which reads the tokenizer, is not counted.
    for samples in [1, count + 1]:
        if os.path.exists(path):
            os.remove(path)
        said, seconds = processor_time([
            program, "ruler", "generate", "--task", task, "--length", str(length), "--samples", str(samples),
            "--tokenizer", definition, "--out", path])
        if said.returncode:
            return None, said.stderr.strip()
        took.append(seconds)
    rows = []
    with open(path) as lines:
        for line in lines:
            row = json.loads(line)
            # Of most rows their size is enough.
            rows.append(row if len(rows) < 20 else {"length": row["length"]})
    os.remove(path)
    return rows, count / max(took[1] - took[0], 1e-6)


def theirs(task, length, count):
    # It writes a line for each size that it tries.
    quiet, sys.stdout = sys.stdout, open(os.devnull, "w")
    try:
        # The search for the size, which is made once for all samples, is not counted; there are enough samples that
        # they take longer than its own time varies by.
        while True:
            begun = time.process_time()
            TASKS[task](length, 1)
            between = time.process_time()
            samples = TASKS[task](length, count + 1)
            search = between - begun
            took = time.process_time() - between - search
            if took > search / 2:
                return samples, count / took
            count *= 2
    finally:
        sys.stdout = quiet


bad = 0
print("task              length    tokens: ours, lm-eval's   samples a core second: ours, lm-eval's   times", flush=True)
for task in TASKS:
    for length in lengths:
        mine, rate = ours(task, length, max(20, min(10_000, 40_000_000 // length)))
        if mine is None:
            print(f"{task:17} {length:6}    {rate}")
            continue
        other, slow = theirs(task, length, max(3, min(50, 400_000 // length)))
        same = normal(task, mine[0]["input"] + mine[0]["answer_prefix"])
        wanted = normal(task, other[0]["input"] + " " + other[0]["gen_prefix"]) 
        templates = same.strip() == wanted.strip()
        fits = all(row["length"] <= length for row in mine)
        exact = all(len(plain.encode(row["input"] + row["answer_prefix"]).ids) <= row["length"] for row in mine[:3])
        scores = all(
            common_utils.string_match_all(common_utils.postprocess_pred([pred]), [row["outputs"]]) == share
            for row in mine[:20] for pred, share in [(" ".join(row["outputs"]).upper() + "\x01", 1.0), ("", 0.0)])
        ok = templates and fits and exact and scores
        bad += not ok
        print(f"{task:17} {length:6}    {max(r['length'] for r in mine):6} {max(r['length'] for r in other):6}"
              f"            {rate:10.0f} {slow:10.2f}         {rate / slow:8.0f}"
              f"{'' if ok else f'  DIFFERS templates={templates} fits={fits} exact={exact} scores={scores}'}", flush=True)
        if not templates:
            print("  ours:   ", same[-400:].replace("\n", "|")); print("  lm-eval:", wanted[-400:].replace("\n", "|"))
sys.exit(bad > 0)
