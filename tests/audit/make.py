"""Makes the files beside it: results as five tools write them, sound ones and ones with each fault planted.

    python tests/audit/make.py RULER LM_EVAL BABILONG HELMET LONGBENCH

takes clones of NVIDIA/RULER (c3f5e3b), EleutherAI/lm-evaluation-harness (4e7e0d4), booydar/babilong (7a6efee),
princeton-nlp/HELMET (4526dfb) and THUDM/LongBench (2e00731): every score that is written comes from their own code, so
that `longhaul audit` is held against it. Their imports of large libraries are met by empty modules.
"""

import ast
import csv
import importlib.util
import json
import random
import re
import sys
import types
from pathlib import Path
from unittest.mock import MagicMock

HERE = Path(__file__).parent
RULER, LM_EVAL, BABILONG, HELMET, LONGBENCH = map(Path, sys.argv[1:6])
for name in ["transformers", "rouge_score", "torch", "pytrec_eval", "datasets"]:
    sys.modules[name] = MagicMock()


def module(path):
    spec = importlib.util.spec_from_file_location(path.stem + "_of_tool", path)
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def function(path, name):
    """A function of a script that cannot be imported as a whole."""
    tree = ast.parse(path.read_text())
    found = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name)
    names = {"re": re}
    exec(compile(ast.Module([found], []), str(path), "exec"), names)
    return names[name]


ruler_scores = module(RULER / "scripts/eval/synthetic/constants.py")
lm_eval_scores = module(LM_EVAL / "lm_eval/tasks/ruler/common_utils.py")
babilong_scores = module(BABILONG / "babilong/metrics.py")
helmet_scores = module(HELMET / "utils.py")
extract_answer = function(LONGBENCH / "pred.py", "extract_answer")


def lines(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def ruler_rows(task, count):
    dice = random.Random(task)
    rows = []
    for index in range(count):
        word = dice.choice(["lush-cactus", "tall-river", "odd-lamp"])
        if task == "niah_multivalue":
            outputs = [str(dice.randrange(10**6, 10**7)) for _ in range(4)]
            text = f"Some special magic numbers are hidden within the following text.\n...\nWhat are all the special " \
                f"magic numbers for {word} mentioned in the provided text? The special magic numbers for {word} " \
                "mentioned in the provided text are"
            pred = " " + ", ".join(outputs[: dice.randrange(1, 5)]) + "\x01."
            at = text.find(word)
        elif task == "vt":
            outputs = ["AAAAA", "BBBBB", "CCCCC", "DDDDD", "EEEEE"]
            text = "Memorize and track the chain(s) of variable assignment hidden in the following text.\n\n...\n" \
                "Question: Find all variables that are assigned the value 12345 in the text above. Answer: According " \
                "to the chain(s) of variable assignment in the text above, 5 variables are assigned the value 12345, " \
                "they are: "
            pred = " ".join(outputs[: dice.randrange(0, 6)])
            at = index
        else:
            outputs = ["Denver Broncos", "Denver", "the Broncos"]
            text = "Answer the question based on the given documents.\n...\nQuestion: Who won? Answer:"
            pred = dice.choice([" denver broncos", " The Broncos.", " Carolina", " Denver"])
            at = index
        rows.append(
            {"index": at, "pred": pred, "input": text, "outputs": outputs, "others": {"id": index}, "truncation": -1,
             "length": 4090}
        )
    return rows


def ruler_score(task, rows):
    clean = [re.sub(r"[\x00-\x1f]", "\n", row["pred"].strip()).strip() for row in rows]
    references = [row["outputs"] for row in rows]
    part = ruler_scores.string_match_part if task.startswith("qa") else ruler_scores.string_match_all
    return part(clean, references), clean


def summary(folder, of_tasks):
    rows = [["Tasks"], ["Score"], ["Nulls"]]
    for task, (score, clean) in of_tasks.items():
        rows[0].append(task)
        rows[1].append(score)
        rows[2].append(f"{sum(len(text) == 0 for text in clean)}/{len(clean)}")
    with open(folder / "summary.csv", "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(range(len(rows[0])))
        writer.writerows(rows)


def ruler():
    folder = HERE / "sound/ruler/4096/pred"
    scores = {}
    for task in ["niah_multivalue", "vt", "qa_1"]:
        rows = ruler_rows(task, 20)
        lines(folder / f"{task}.jsonl", rows)
        scores[task] = ruler_score(task, rows)
    summary(folder, scores)

    folder = HERE / "faulty/ruler/4096/pred"
    cut = ruler_rows("niah_multivalue", 20)
    for row in cut[:3]:
        row["truncation"] = 128
    for row in cut[:5]:
        row["input"] = row["input"].split(" The special")[0]
    doubled = cut[:19] + cut[18:19]
    lines(folder / "niah_multivalue.jsonl", doubled)
    dropped = [row for row in ruler_rows("vt", 20) if row["index"] not in (4, 9)]
    for row in dropped[:7]:
        row["input"] = "<|begin_of_text|><|start_header_id|>user " + row["input"]
    for row in dropped[7:9]:
        row["input"] = "<s><s> " + row["input"]
    lines(folder / "vt.jsonl", dropped)
    questions = ruler_rows("qa_1", 20)
    lines(folder / "qa_1.jsonl", questions)
    mean = ruler_scores.string_match_all([row["pred"] for row in questions], [row["outputs"] for row in questions])
    summary(folder, {
        "niah_multivalue": ruler_score("niah_multivalue", doubled),
        "vt": (99.0, [row["pred"] for row in dropped]),
        "qa_1": (mean, [row["pred"] for row in questions]),
    })


def lm_eval_samples(task, lengths, count, once):
    dice = random.Random(task)
    samples = []
    for length in lengths:
        for _ in range(count):
            many = task.startswith("ruler_qa")
            outputs = ["Denver Broncos", "Denver"] if many else [str(dice.randrange(10**6, 10**7))]
            answers = [["Denver Broncos"], ["nobody"]] if once else [["in Denver"], ["Denver Broncos"]]
            answer = dice.choice(answers)[0] if many else dice.choice([f" {outputs[0]}.", " 1"])
            prefix = "Answer:" if many else "The special magic number mentioned in the provided text is"
            doc = {"input": "A long text. And a question?", "outputs": outputs, "max_length": length, "gen_prefix": prefix}
            score = lm_eval_scores.process_results_part if many else lm_eval_scores.process_results
            metrics = {"4096": -1.0, "8192": -1.0, **score(doc, [answer])}
            samples.append({
                "doc_id": len(samples), "doc": doc, "target": str(outputs),
                "arguments": {"gen_args_0": {"arg_0": f"{doc['input']} {prefix}", "arg_1": {"until": []}}},
                "resps": [[answer]], "filtered_resps": [answer], "filter": "none", "metrics": list(metrics),
                "doc_hash": "0", "prompt_hash": "0", "target_hash": "0", **metrics,
            })
    return samples


def lm_eval_results(of_tasks, max_length, aggregate=lm_eval_scores.aggregate_metrics):
    results = {}
    for task, samples in of_tasks.items():
        results[task] = {"alias": task}
        for name in ["4096", "8192"]:
            value = aggregate([sample[name] for sample in samples])
            results[task].update({f"{name},none": value, f"{name}_stderr,none": "N/A"})
    return {
        "results": results, "groups": {}, "group_subtasks": {}, "configs": {}, "versions": {},
        "n-samples": {task: {"original": len(rows), "effective": len(rows)} for task, rows in of_tasks.items()},
        "config": {"model": "hf", "limit": None}, "max_length": max_length, "model_name": "org/model",
        "tokenizer_bos_token": ["<s>", "1"],
    }


def lm_eval():
    date = "2026-08-21T10-00-00.000001"
    folder = HERE / "sound/lm-eval/org__model"
    tasks = {"niah_single_1": lm_eval_samples("niah_single_1", [4096, 8192], 10, True),
             "ruler_qa_squad": lm_eval_samples("ruler_qa_squad", [4096], 10, True)}
    for task, samples in tasks.items():
        lines(folder / f"samples_{task}_{date}.jsonl", samples)
    write = lambda folder, value: (folder / f"results_{date}.json").write_text(json.dumps(value, indent=2) + "\n")
    write(folder, lm_eval_results(tasks, 16384))

    folder = HERE / "faulty/lm-eval/org__model"
    tasks = {"niah_single_1": lm_eval_samples("niah_single_1", [4096, 8192], 10, True),
             "ruler_qa_squad": lm_eval_samples("ruler_qa_squad", [4096], 10, False)}
    for sample in tasks["niah_single_1"][:4]:
        prompt = sample["arguments"]["gen_args_0"]
        prompt["arg_0"] = sample["doc"]["input"]
    for sample in tasks["niah_single_1"][4:6]:
        prompt = sample["arguments"]["gen_args_0"]
        prompt["arg_0"] = "<s><s>" + prompt["arg_0"]
    sample = tasks["niah_single_1"][6]["arguments"]["gen_args_0"]
    sample["arg_0"] = sample["arg_0"].replace("A long text. ", "")
    for task, samples in tasks.items():
        lines(folder / f"samples_{task}_{date}.jsonl", samples)
    results = lm_eval_results(tasks, 4096, aggregate=lambda scores: sum(scores) / len(scores))
    results["results"]["ruler_qa_squad"]["4096,none"] = lm_eval_scores.aggregate_metrics(
        [sample["4096"] for sample in tasks["ruler_qa_squad"]])
    results["results"]["niah_single_2"] = {"alias": "niah_single_2", "4096,none": 0.75, "8192,none": -1}
    results["n-samples"]["niah_single_2"] = {"original": 500, "effective": 20}
    group = ["niah_single_2", "niah_single_3"]
    results["results"]["niah_single_3"] = {"alias": "niah_single_3", "4096,none": -1, "8192,none": -1}
    results["n-samples"]["niah_single_3"] = {"original": 500, "effective": 500}
    results["results"]["ruler"] = {"4096,none": -0.125, "alias": "ruler"}
    results["groups"] = {"ruler": {"4096,none": -0.125, "alias": "ruler", "8192_stderr,none": float("nan")}}
    results["group_subtasks"] = {"ruler": group}
    write(folder, results)


SETUP = "instruction_yes_examples_yes_post_prompt_yes_chat_template_no"


def babilong_rows(task, count, goes_on):
    dice = random.Random(task)
    labels = babilong_scores.TASK_LABELS[task]
    rows = []
    for index in range(count):
        target = dice.choice(labels)
        other = dice.choice(labels)
        answer = dice.choice([f"Mary is in the {target}.", f"{target} or {other}", f"The {other}", ""])
        if goes_on and index < 3:
            answer = f"{target}\nQuestion: Is it the {labels[0] if target != labels[0] else labels[1]}"
        rows.append([index, target, answer, "Where is Mary? "])
    return rows


def babilong_csv(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["", "target", "output", "question"])
        writer.writerows(rows)


def babilong_score(task, rows):
    right = [babilong_scores.compare_answers(target, output, question, babilong_scores.TASK_LABELS[task])
             for _, target, output, question in rows]
    return 100 * sum(right) / len(right)


def babilong():
    tasks = ["qa1", "qa2", "qa3", "qa4", "qa5"]
    heads = ["", "0k", "4k"]

    def table(path, cells, average):
        with open(path, "w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerows([heads, *([task, *row] for task, row in zip(tasks, cells)), ["avg", *average]])

    folder = HERE / "sound/babilong"
    rows = babilong_rows("qa1", 20, False)
    babilong_csv(folder / f"qa1_4k_{SETUP}.csv", rows)
    cells = [[90.0, babilong_score("qa1", rows)]] + [[80.0, -1.0]] * 4
    table(folder / "model.csv", cells, [82.0, -1.0])
    folder = HERE / "faulty/babilong"
    rows = babilong_rows("qa1", 20, True)
    babilong_csv(folder / f"qa1_4k_{SETUP}.csv", [row for row in rows if row[0] not in (7, 11)])
    babilong_csv(folder / f"qa1_4k_{SETUP.replace('examples_yes', 'examples_no')}.csv", rows[3:4] + rows)
    table(folder / "model.csv", cells, [84.0, sum(row[1] for row in cells) / 5])


def helmet_result(dataset, items, length, generated, wanted):
    qa = "qa" in dataset
    metrics = {"input_len": [], "output_len": []}
    data = []
    for item in items:
        answer = item["answer"]
        if qa:
            best = helmet_scores.drqa_metric_max_over_ground_truths
            scores = [best(helmet_scores.substring_exact_match_score, text, answer)
                      for text in [item["output"], helmet_scores.parse_output(item["output"])]]
            item["parsed_output"] = helmet_scores.parse_output(item["output"])
            mets = {"substring_exact_match": max(scores)}
        else:
            # As `data.py` has it, in a function that cannot be called alone.
            found = sum(a.lower() in item["output"].lower() for a in answer)
            item["parsed_output"] = item["output"]
            mets = {"ruler_recall": found / len(answer)}
        item.update(mets)
        for name, value in {**mets, "input_len": item["input_len"], "output_len": item["output_len"]}.items():
            metrics.setdefault(name, []).append(value)
        data.append(item)
    mean = lambda name: sum(metrics[name]) / len(metrics[name]) * (1 if "_len" in name else 100)
    return {
        "args": {"datasets": dataset, "input_max_length": length, "generation_max_length": generated,
                 "max_test_samples": wanted, "use_chat_template": False, "model_name_or_path": "org/model", "seed": 42},
        "data": data, "metrics": metrics, "averaged_metrics": {name: mean(name) for name in metrics},
        "throughput": 1.0, "memory_usage": 1,
    }


def helmet_items(dataset, count, tokens):
    dice = random.Random(dataset)
    items = []
    for _ in range(count):
        if "qa" in dataset:
            answer = ["the Denver Broncos", "Broncos"]
            output = dice.choice(["Answer: The Denver Broncos!\nmore", "Answer: Carolina", "Answer: Broncos"])
        else:
            answer = [str(dice.randrange(10**6, 10**7)) for _ in range(4)]
            output = "The numbers are " + ", ".join(answer[: dice.randrange(0, 5)])
        items.append({"question": "?", "answer": answer, "output": output, "input_len": tokens, "output_len": 20,
                      "input_text": "<s> A long text and a question? Answer:"})
    return items


def helmet():
    name = "{}_v_validation_8192_in8192_size10_shots0_sampFalsemax50min0t1.0p1.0_chatFalse_42.json"

    def write(part, dataset, value):
        path = HERE / part / "helmet" / name.format(dataset)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value, indent=1) + "\n")

    for dataset in ["ruler_niah_mv", "ruler_qa_1"]:
        write("sound", dataset, helmet_result(dataset, helmet_items(dataset, 10, 8000), 8192, 50, 10))
    items = helmet_items("ruler_niah_mv", 8, 8142)
    for item in items[:2]:
        item["input_text"] = "<s>" + item["input_text"]
    for item in items[2:]:
        item["input_len"] = 8000
    write("faulty", "ruler_niah_mv", helmet_result("ruler_niah_mv", items, 8192, 50, 10))
    value = helmet_result("ruler_qa_1", helmet_items("ruler_qa_1", 10, 8000), 8192, 50, 10)
    found = lambda item: [helmet_scores.substring_exact_match_score(item["output"], a) for a in item["answer"]]
    means = [sum(found(item)) / 2 for item in value["data"]]
    value["metrics"]["substring_exact_match"] = means
    value["averaged_metrics"]["substring_exact_match"] = 100 * sum(means) / len(means)
    value["metrics"]["f1"] = [0.5] * 9
    value["averaged_metrics"]["f1"] = 45.0
    write("faulty", "ruler_qa_1", value)


def longbench_rows():
    dice = random.Random("longbench")
    for index in range(503):
        answer = dice.choice("ABCD")
        choice = dice.choice("ABCD" + answer * 4)
        response = dice.choice([f"The correct answer is ({choice})", f"**The correct answer is {choice}**", "I do not know."])
        pred = extract_answer(response)
        yield {"_id": f"{index:024x}", "domain": "d", "sub_domain": "s", "difficulty": dice.choice(["easy", "hard"]),
               "length": dice.choice(["short", "medium", "long"]), "question": "?", "choice_A": "a", "choice_B": "b",
               "choice_C": "c", "choice_D": "d", "answer": answer, "context": "...", "response": response, "pred": pred,
               "judge": pred == answer}


def longbench():
    rows = list(longbench_rows())
    lines(HERE / "sound/longbench/model.jsonl", rows)
    rows = rows[:450] + rows[:2]
    for row in rows[10:13]:
        row["judge"] = not row["judge"]
    lines(HERE / "faulty/longbench/model.jsonl", rows)


for make in [ruler, lm_eval, babilong, helmet, longbench]:
    make()
