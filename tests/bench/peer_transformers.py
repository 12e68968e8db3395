# SPDX-License-Identifier: GPL-3.0-or-later
"""The peer of bench_model: transformers on the CPU, one measurement per line of standard input.

Usage: peer_transformers.py MODEL.gguf [THREADS] [--cpu-time]
Names: decode_dense, decode_moe (48 greedy tokens behind a prompt of 32), prefill_dense, prefill_moe (512 tokens, logits of the
last only), prefill_dense_all, prefill_moe_all (logits of all). The mixture is a Mixtral of the dense model's sizes with 8
experts, 2 per token, and random weights. Answers with tokens per second. Needs torch, transformers, gguf.
"""
import os
import sys
import time

import torch
from transformers import AutoModelForCausalLM, MixtralConfig, MixtralForCausalLM
from transformers.utils import logging

logging.disable_progress_bar()
logging.set_verbosity_error()
clock = time.process_time if "--cpu-time" in sys.argv else time.perf_counter
sys.argv = [a for a in sys.argv if a != "--cpu-time"]
if len(sys.argv) > 2:
    torch.set_num_threads(int(sys.argv[2]))
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
folder, name = os.path.split(os.path.abspath(sys.argv[1]))
models = {}


def model_of(kind):
    if kind == "dense" and "dense" not in models:
        models["dense"] = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32).eval()
    if kind == "moe" and "moe" not in models:
        models.pop("dense", None)
        torch.manual_seed(0)
        config = MixtralConfig(vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
                               num_key_value_heads=3, num_local_experts=8, num_experts_per_tok=2, tie_word_embeddings=True)
        with torch.device("meta"):
            model = MixtralForCausalLM(config)
        model = model.to_empty(device="cpu").float().eval()
        with torch.no_grad():
            for p in model.parameters():
                p.uniform_(-0.05, 0.05)
            model.model.rotary_emb.__init__(config)
        model.tie_weights()
        models["moe"] = model
    return models[kind]


def decode(model, tokens):
    with torch.no_grad():
        out = model(torch.randint(0, 40000, (1, 32)), use_cache=True, logits_to_keep=1)
        cache, token = out.past_key_values, out.logits[:, -1:].argmax(-1)
        begin = clock()
        for _ in range(tokens):
            out = model(token, past_key_values=cache, use_cache=True)
            token = out.logits[:, -1:].argmax(-1)
        return tokens / (clock() - begin)


def prefill(model, tokens, keep):
    ids = torch.randint(0, 40000, (1, tokens))
    with torch.no_grad():
        begin = clock()
        model(ids, use_cache=True, logits_to_keep=keep)
        return tokens / (clock() - begin)


for line in sys.stdin:
    work, kind, *rest = line.strip().split("_")
    model = model_of(kind)
    rate = decode(model, 48) if work == "decode" else prefill(model, 512, 0 if rest else 1)
    print(f"{rate:.3f}", file=answers, flush=True)
