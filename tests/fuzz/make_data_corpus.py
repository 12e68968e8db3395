# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes corpus/data: small inputs for data_fuzz.cpp. Needs the program zstd."""
import json
import os
import subprocess

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "corpus", "data")
LINES = b'{"text":"one"}\n{"id":1e3,"meta":{"text":[null,true]},"text":"\\u00e9\\ud83d\\ude00"}\r\n\n{"text":""}\n'
TEXT = "\ufeffOne line.\r\nAnother é 専門\n\n".encode() + b"word " * 40


def manifest(weight):
    part = {"tokens": 4, "documents": 1, "bytes": 9, "sha256": "ab"}
    domain = {"name": "wiki", "weight": weight, "files": [{"path": "a.txt", "sha256": "cd", "bytes": 9, "documents": 1, "kept": 1}],
              "training": part, "held_out": part}
    return json.dumps({"format": "spectra-corpus-1", "key": "ef", "domains": [domain], "filters": {"text_field": "text"}, "order": "o",
                       "split": {"held_out": 0.05}, "tokenizer": {"sha256": "01"}}).encode()


def zstd(data, *options):
    return subprocess.run(["zstd", "-q", "-c", *options], input=data, stdout=subprocess.PIPE, check=True).stdout


INPUTS = {
    "lines": b"\0" + LINES, "lines_wrong": b"\0" + LINES + b"[1]\n", "lines_nofield": b"\0" + b'{"body":"b"}', "lines_nul": b'\0{"text":"\0"}',
    "text": b"\1" + TEXT, "text_latin1": b"\1caf\xe9\n", "text_dense": b"\3" + zstd("専".encode() * 90000), "text_gzip": b"\1\x1f\x8b\x08",
    "lines_zst": b"\2" + zstd(LINES), "text_zst": b"\3" + zstd(TEXT) + zstd(TEXT, "--no-check"), "text_cut": b"\3" + zstd(TEXT)[:-3],
    "text_bomb": b"\3" + zstd(b"a" * (20 << 20)), "lines_bomb": b"\2" + zstd(b"[" * (4 << 20)), "manifest": b"\4" + manifest(1),
    "manifests": b"\4" + manifest(1) + b"\0" + manifest(2),
}
os.makedirs(HERE, exist_ok=True)
for name, data in INPUTS.items():
    with open(os.path.join(HERE, name), "wb") as file:
        file.write(data)
