# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes corpus/tasks: small inputs for tasks_fuzz.cpp, from the fixtures in tests/fixtures/tasks and some that are wrong."""
import os
import re

ROOT = os.path.dirname(os.path.abspath(__file__))
HERE = os.path.join(ROOT, "corpus", "tasks")
FIXTURES = os.path.join(ROOT, "..", "fixtures", "tasks")
REGISTRY = open(os.path.join(ROOT, "..", "..", "engine", "tasks", "registry.cpp"), encoding="utf-8").read()
# Order of the registry: the first byte counts in it.
TASKS = []
for name, given in re.findall(r"\b(\w+)Task\((?:\"(\w+)\")?\)", REGISTRY):
    if (given or name) not in TASKS:
        TASKS.append(given or name)


def task(name, data, layout=0):
    return bytes([TASKS.index(name), layout]) + data


def fixture(name, count=3):
    return b"".join(open(os.path.join(FIXTURES, name), "rb").readlines()[:count])


INPUTS = {f"{name}_good": task(name, fixture(file)) for name, file in {
    "mmlu": "mmlu.jsonl", "hellaswag": "hellaswag.jsonl", "arc_easy": "arc.jsonl", "arc_challenge": "arc.jsonl", "piqa": "piqa.jsonl", "boolq": "boolq.jsonl",
    "truthfulqa": "truthfulqa.jsonl", "lambada": "lambada.jsonl", "wikitext2": "wikitext.jsonl", "math": "math.jsonl",
    "humaneval": "humaneval.jsonl", "mbpp": "mbpp.jsonl"}.items()}
CORPUS = b'{"doc_id": 31, "title": "T", "abstract": ["One.", " Two. "]}\n'
CLAIM = b'{"id": 5, "claim": "A.", "evidence": {"31": [{"sentences": [1], "label": "SUPPORT"}]}, "cited_doc_ids": [31]}\n'
CHOICE = b'{"question": "a?", "choices": ["x", "y"], "answer": 0}\n'
RUN = b'{"task": "choice", "id": "a", "right": 1, "answer": "x", "routing": [[1, 2], [3, 0]]}\n{"task": "choice", "id": "b", "right": 0, "answer": "y", "routing": [[1, 2], [3, 0]]}\n'
INPUTS |= {
    "choice_good": task("choice", CHOICE * 2), "choice_array": task("choice", b"[" + CHOICE.strip() + b"," + CHOICE.strip() + b"]"), "choice_deep": task("choice", b"[" * 3000),
    "choice_huge_number": task("choice", CHOICE.replace(b"0}", b"1e400}")), "choice_negative": task("choice", CHOICE.replace(b"0}", b"-9223372036854775808}")),
    "choice_utf8": task("choice", b'{"question": "\xff", "choices": ["x", "y"], "answer": 0}'), "choice_bom": task("choice", b"\xef\xbb\xbf" + CHOICE), "empty": task("choice", b""),
    "arc_own": task("arc_easy", b'{"id": "x", "question": {"stem": "Hot?", "choices": [{"text": "sun", "label": "A"}, {"text": "ice", "label": "B"}]}, "answerKey": "B"}'),
    "arc_labels": task("arc_easy", b'{"question": "a", "choices": {"text": ["x"], "label": ["A", "B"]}, "answerKey": "A"}'),
    "truthfulqa_own": task("truthfulqa", b'{"question": "Q?", "mc1_targets": {"No.": 0, "Yes.": 1}, "mc2_targets": {"Aye.": 1, "No.": 0}}'),
    "truthfulqa_uneven": task("truthfulqa", b'{"question": "Q?", "mc1_targets": {"choices": ["a"], "labels": [1, 0]}, "mc2_targets": []}'),
    "pubmedqa_hub": task("pubmedqa", b'{"pubid": 7, "question": "Q?", "context": {"contexts": ["A.", "B."]}, "final_decision": "maybe"}'),
    "pubmedqa_own": task("pubmedqa", b'{"QUESTION": "Q?", "CONTEXTS": ["A.", "B."], "final_decision": "no"}'),
    "scifact_flat": task("scifact", b'{"claim": "a", "abstract": ["b", "c"], "label": "REFUTES"}'), "scifact_claims": task("scifact", CLAIM + b"\1" + CORPUS),
    "scifact_alone": task("scifact", CLAIM), "scifact_evidence": task("scifact", CLAIM.replace(b'[{"sentences": [1], "label": "SUPPORT"}]', b'[7]') + b"\1" + CORPUS),
    "scifact_corpus": task("scifact", CLAIM + b"\1" + b'{"doc_id": []}'),
    "wikitext_tokens": task("wikitext103", b" = First = \n \n Some text , here @-@ now . \n = = Part = = \n More 's . \n = Second = \n Last ( 1 @,@ 000 ) . \n", 1),
    "ppl_text": task("ppl", "One text é.\n".encode(), 1), "ppl_nul": task("ppl", b"a\0b", 1), "ppl_lines": task("ppl", b'{"text": "One."}\n{"text": ""}\n'),
    "gsm8k": task("gsm8k", b'{"question": "One and one?", "answer": "It is two.\\n#### 2"}\n{"question": "And one?", "answer": "#### -1,002.5"}\n'),
    "mbpp_setup": task("mbpp", b'{"task_id": "5", "prompt": "Add.", "test_list": ["assert 1"], "test_imports": ["import math"], "test_setup_code": "x = 1"}'),
    "lambada_space": task("lambada", b'{"text": "ends in space "}'),
    "answers_boxed": bytes([len(TASKS), 0]) + b"a \\boxed{1} \\boxed{\\frac12} #### 1,250 \nFinal Answer: The final answer is $\\sqrt2$ cm. I hope it is correct.",
    "answers_openings": bytes([len(TASKS), 0]) + b"\\text{" * 6000, "answers_roots": bytes([len(TASKS), 0]) + b"sqrt[" * 6000,
    "answers_beginnings": bytes([len(TASKS), 0]) + b"Final Answer: The final answer is" * 1200,
    "run": bytes([len(TASKS) + 1, 0]) + RUN, "run_uneven": bytes([len(TASKS) + 1, 0]) + RUN.replace(b"[3, 0]", b"[3]"), "run_twice": bytes([len(TASKS) + 1, 0]) + RUN * 2,
    "run_huge": bytes([len(TASKS) + 1, 0]) + RUN.replace(b"[1, 2]", b"[9223372036854775807, 9223372036854775807]"),
}
os.makedirs(HERE, exist_ok=True)
for name, data in INPUTS.items():
    with open(os.path.join(HERE, name), "wb") as file:
        file.write(data)
