#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Small seeds for the fuzzers of safetensors, GGUF and config.json. Needs gguf, numpy, safetensors; reads ../fixtures."""
import glob
import json
import os

import gguf
import numpy as np
from safetensors.numpy import save_file

HERE = os.path.dirname(os.path.abspath(__file__))
T = gguf.GGMLQuantizationType


def place(kind, name):
    os.makedirs(f"{HERE}/corpus/{kind}", exist_ok=True)
    return f"{HERE}/corpus/{kind}/{name}"


def layer(ffn):
    p = "model.layers.0."
    s = {"model.embed_tokens.weight": (5, 4), "model.norm.weight": (4,), p + "input_layernorm.weight": (4,), p + "post_attention_layernorm.weight": (4,),
         p + "self_attn.q_proj.weight": (4, 4), p + "self_attn.k_proj.weight": (2, 4), p + "self_attn.v_proj.weight": (2, 4), p + "self_attn.o_proj.weight": (4, 4)}
    return {k: np.ones(v, "<f4") for k, v in (s | {p + k: v for k, v in ffn.items()}).items()}


three = lambda p: {p + "gate_proj.weight": (3, 4), p + "up_proj.weight": (3, 4), p + "down_proj.weight": (4, 3)}
save_file(layer(three("mlp.")), place("safetensors", "dense"))
save_file(layer({"block_sparse_moe.gate.weight": (2, 4)} | {f"block_sparse_moe.experts.{e}.{w}.weight": s for e in range(2) for w, s in
                                                          (("w1", (3, 4)), ("w3", (3, 4)), ("w2", (4, 3)))}), place("safetensors", "experts"))
save_file(layer({"mlp.gate.weight": (2, 4), "mlp.experts.gate_up_proj": (2, 6, 4), "mlp.experts.down_proj": (2, 4, 3)}), place("safetensors", "fused"))
save_file(layer({"mlp.gate.weight": (2, 4), "mlp.experts.gate_up_proj": (2, 4, 6), "mlp.experts.down_proj": (2, 3, 4)}), place("safetensors", "fused-transposed"))
save_file(layer(three("mlp.experts.0.") | three("mlp.experts.1.") | {"mlp.router.potential": (2,)}), place("safetensors", "ours"))
save_file({"a": np.ones(3, "<f2"), "b": np.zeros((0, 2), "<i8")}, place("safetensors", "other"), metadata={"format": "pt"})
open(place("safetensors", "length"), "wb").write((2**62).to_bytes(8, "little") + b"{}")
open(place("safetensors", "overlap"), "wb").write(b"\x77\0\0\0\0\0\0\0" + b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[2,6]}}'.ljust(0x77) + bytes(6))

for name, experts, kind in (("llama-f32", 0, T.F32), ("llama-q8_0", 0, T.Q8_0), ("llama-q5_1", 0, T.Q5_1), ("mixtral-q4_0", 2, T.Q4_0), ("mixtral-f16", 2, T.F16)):
    w = gguf.GGUFWriter(place("gguf", name), "llama")
    H = 32
    w.add_block_count(1), w.add_embedding_length(H), w.add_feed_forward_length(H), w.add_head_count(2), w.add_head_count_kv(1), w.add_context_length(9)
    w.add_layer_norm_rms_eps(1e-5), w.add_rope_freq_base(1e4), w.add_tokenizer_model("llama"), w.add_token_list(["a", "b", "c"]), w.add_token_scores([0.0, 1.0, 2.0])
    w.add_bos_token_id(1)
    if experts:
        w.add_expert_count(experts), w.add_expert_used_count(1)
    if name == "llama-q5_1":
        w.add_rope_scaling_type(gguf.RopeScalingType.YARN), w.add_rope_scaling_factor(4.0)
        w.add_tensor("rope_freqs.weight", np.ones(8, "<f4"))
    s = {"token_embd": (3, H), "output_norm": (H,), "blk.0.attn_norm": (H,), "blk.0.ffn_norm": (H,), "blk.0.attn_q": (H, H), "blk.0.attn_k": (16, H),
         "blk.0.attn_v": (16, H), "blk.0.attn_output": (H, H)}
    f = "blk.0.ffn_"
    s |= {f + "gate_inp": (2, H), f + "gate_exps": (2, H, H), f + "up_exps": (2, H, H), f + "down_exps": (2, H, H)} if experts else {f + "gate": (H, H), f + "up": (H, H), f + "down": (H, H)}
    for key, shape in s.items():
        x, plain = np.ones(shape, "<f4"), len(shape) == 1 or kind == T.F32 or key.endswith("inp")
        data = x if plain else x.astype("<f2") if kind == T.F16 else gguf.quants.quantize(x, kind)
        w.add_tensor(key + ".weight", data, raw_dtype=T.F32 if plain else kind)
    w.write_header_to_file(), w.write_kv_data_to_file(), w.write_tensors_to_file(), w.close()
open(place("gguf", "counts"), "wb").write(b"GGUF\x03\0\0\0" + (2**63).to_bytes(8, "little") * 2)
open(place("gguf", "big-endian"), "wb").write(b"GGUF\0\0\0\x03" + bytes(16))

small = {"hidden_size": 4, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2, "intermediate_size": 3, "vocab_size": 5}
configs = {"llama": {"model_type": "llama", "tie_word_embeddings": True}, "mixtral": {"model_type": "mixtral", "num_local_experts": 2},
           "ours": {"model_type": "spectra", "base_model_type": "llama", "num_local_experts": 2, "num_experts_per_tok": 1, "moe_layers": [0], "n_shared_experts": 0,
                    "router": {"type": "spectra", "router_dim": 4}, "upcycling": {"note": "x", "training_step": 3, "router_trained": False}},
           "rope": {"model_type": "llama", "rope_parameters": {"rope_type": "yarn", "factor": 4.0, "rope_theta": 1e4, "mscale": 1, "mscale_all_dim": 0.7, "truncate": False}},
           "rope4": {"model_type": "llama", "rope_theta": 1e4, "rope_scaling": {"type": "llama3", "factor": 8, "low_freq_factor": 1, "high_freq_factor": 4,
                                                                             "original_max_position_embeddings": 32}, "eos_token_id": [1, 2], "rope_frequency_factors": [1.0]}}
for name, config in configs.items():
    index = {"metadata": {"total_size": 1}, "weight_map": {"model.norm.weight": "model.safetensors", "x": "model-00001-of-00002.safetensors"}}
    open(place("config", name), "wb").write(json.dumps(small | config).encode() + (b"\0" + json.dumps(index).encode() if name.startswith("rope") else b""))
for path in glob.glob(f"{HERE}/../fixtures/models/*/config.json"):
    open(place("config", os.path.basename(os.path.dirname(path))), "w").write(json.dumps(json.load(open(path))))
