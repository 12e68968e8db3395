# SPDX-License-Identifier: GPL-3.0-or-later
"""The peer of bench_train: one training step of transformers' Mixtral, eager, on the CPU, with torch.optim.AdamW.

Usage: peer_train_transformers.py [THREADS] [--hidden 128] [--layers 4] … (the sizes of bench_train) [--cpu-time]
Every line of standard input asks for one measurement of some steps: forward, backward, clipping to norm 1, AdamW. Answers with
tokens per second, the best of the implementations of attention and experts that transformers offers on the CPU, tried once at the
start. Needs torch and transformers.
"""
import argparse
import os
import sys
import time

import torch
from transformers import MixtralConfig, MixtralForCausalLM
from transformers.utils import logging

logging.set_verbosity_error()
parser = argparse.ArgumentParser()
parser.add_argument("threads", nargs="?", type=int, default=0)
for name, value in (("hidden", 128), ("layers", 4), ("heads", 4), ("experts", 8), ("topk", 2), ("width", 256), ("vocabulary", 4096), ("length", 256),
                    ("sequences", 8), ("steps", 5)):
    parser.add_argument("--" + name, type=int, default=value)
parser.add_argument("--cpu-time", action="store_true")
a = parser.parse_args()
clock = time.process_time if a.cpu_time else time.perf_counter
if a.threads:
    torch.set_num_threads(a.threads)
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)


class Run:
    def __init__(self, attention, experts):
        torch.manual_seed(0)
        config = MixtralConfig(vocab_size=a.vocabulary, hidden_size=a.hidden, intermediate_size=a.width, num_hidden_layers=a.layers,
                               num_attention_heads=a.heads, num_key_value_heads=a.heads, num_local_experts=a.experts, num_experts_per_tok=a.topk,
                               tie_word_embeddings=True, max_position_embeddings=a.length, output_router_logits=True, use_cache=False)
        config._attn_implementation = attention
        config._experts_implementation = experts
        self.model = MixtralForCausalLM(config).float().train()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1)
        self.ids = torch.randint(0, a.vocabulary, (a.sequences, a.length))
        self.labels = torch.randint(0, a.vocabulary, (a.sequences, a.length))

    def step(self):
        self.optimizer.zero_grad(set_to_none=True)
        self.model(input_ids=self.ids, labels=self.labels).loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()

    def measure(self, steps):
        begin = clock()
        for _ in range(steps):
            self.step()
        return steps * a.sequences * a.length / (clock() - begin)


best, rate = None, 0
for attention in ("sdpa", "eager"):
    for experts in ("eager", "grouped_mm", "batched_mm"):
        try:
            run = Run(attention, experts)
            run.step()
            found = run.measure(2)
        except Exception as error:  # not every version offers every implementation on the CPU
            print(attention, experts, error, file=sys.stderr)
            continue
        print(attention, experts, f"{found:.0f}", file=sys.stderr)
        if found > rate:
            best, rate = run, found
for _ in sys.stdin:
    print(f"{best.measure(a.steps):.3f}", file=answers, flush=True)
