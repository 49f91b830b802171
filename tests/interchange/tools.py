"""Reads what `longhaul export` wrote by the code of the tools that it is for.

    python tools.py LM_EVAL_FOLDER RULER_FOLDER BABILONG_FOLDER

lm-evaluation-harness lists, hashes, scores and tabulates its files itself. RULER's evaluation (`scripts/eval/evaluate.py`)
and BABILong's collection (`babilong/collect_results.py`) are no packages: files are read by pandas as they do, and RULER's
scores are those of its metric in the harness.
"""

import importlib.util
import json
import sys
from pathlib import Path
from unittest.mock import MagicMock

import lm_eval
import pandas as pd
from lm_eval.utils import (get_file_task_name, get_latest_filename, get_results_filenames, get_sample_results_filenames,
                           handle_non_serializable, hash_string, make_table)

# The harness's tasks of RULER make prompts by a tokenizer, which scoring does not need.
sys.modules["transformers"] = MagicMock()
spec = importlib.util.spec_from_file_location("ruler", Path(lm_eval.__file__).parent / "tasks/ruler/common_utils.py")
ruler = importlib.util.module_from_spec(spec)
spec.loader.exec_module(ruler)


def near(one, other, most=1e-9):
    assert abs(one - other) <= most, f"{one} is not {other}"


def harness(folder):
    count = 0
    for model in folder.iterdir():
        files = [str(path) for path in model.iterdir()]
        latest = get_latest_filename(get_results_filenames(files))
        results = json.loads(Path(latest).read_text())
        assert results["model_name_sanitized"] == model.name
        samples = get_sample_results_filenames(files)
        assert {get_file_task_name(Path(path).name) for path in samples} == set(results["results"]), samples
        table = make_table(results)
        cells = [[cell.strip() for cell in line.split("|")] for line in table.splitlines()]
        shown = {(row[5], float(row[7])) for row in cells[2:]}
        for path in samples:
            task = get_file_task_name(Path(path).name)
            of_task = results["results"][task]
            lines = [json.loads(line) for line in Path(path).read_text().splitlines()]
            assert len(lines) == results["n-samples"][task]["effective"] and task in table
            scores, hashes = {}, ""
            for line in lines:
                doc = json.dumps(line["doc"], indent=2, default=handle_non_serializable, ensure_ascii=False)
                prompt = line["arguments"]["gen_args_0"]["arg_0"]
                own = [hash_string(text) for text in [doc, prompt, line["target"]]]
                assert own == [line["doc_hash"], line["prompt_hash"], line["target_hash"]], line["doc_id"]
                hashes += "".join(own)
                length = str(line["doc"]["max_length"])
                near(line[length], ruler.process_results(line["doc"], line["filtered_resps"])[length])
                for name in line["metrics"]:
                    scores.setdefault(name, []).append(line[name])
            assert results["task_hashes"][task] == hash_string(hashes)
            for length, values in scores.items():
                near(of_task[f"{length},none"], ruler.aggregate_metrics(values))
                assert (length, float(f"{of_task[f'{length},none']:.4f}")) in shown, table
                count += 1
    assert count == 4, count
    print(f"{folder}: lm-evaluation-harness {lm_eval.__version__} reads {count} scores")


def evaluation(folder):
    count = 0
    for summary in folder.rglob("summary*.csv"):
        tasks, scores, nulls = pd.read_csv(summary).values[:, 1:]
        for task, score, null in zip(tasks, scores, nulls):
            lines = [json.loads(line) for line in (summary.parent / f"{task}.jsonl").read_text().splitlines()]
            # The fields that it reads: all must be there.
            for line in lines:
                line["input"], line["others"].get("id", line["index"])
            predictions = ruler.postprocess_pred([line["pred"] for line in lines])
            near(float(score), round(100 * ruler.string_match_all(predictions, [line["outputs"] for line in lines]), 2))
            assert null == f"{sum(len(text) == 0 for text in predictions)}/{len(lines)}"
            count += 1
    assert count == 4, count
    print(f"{folder}: RULER's metric gives {count} scores")


def collection(folder):
    table = pd.read_csv(folder / "all_results.csv")
    assert list(table.columns[:2]) == ["model_name", "task"]
    numbers = table[table.columns[2:]]
    assert all(kind == float for kind in numbers.dtypes), numbers.dtypes
    assert ((numbers == -1) | ((numbers >= 0) & (numbers <= 100))).all(axis=None), numbers
    assert (table["task"] == "avg").sum() == table["model_name"].nunique() == 1
    print(f"{folder}: {len(table)} rows")


harness(Path(sys.argv[1]))
evaluation(Path(sys.argv[2]))
collection(Path(sys.argv[3]))
