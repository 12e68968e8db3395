# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes corpus/trace: heaps with texts as HDF5 stores them (File Format Specification 3.0, III.E), whole and damaged, and
packed chunks. Run in this folder."""
import os
import struct
import zlib

os.makedirs("corpus/trace", exist_ok=True)


def save(name, refs, file):
    head = b"".join(struct.pack("<IQI", *r) for r in (refs + [(0, 0, 0)] * 4)[:4])
    open(f"corpus/trace/{name}", "wb").write(head + file)


def heap(texts, size=None, version=1):
    body = b""
    for i, t in enumerate(texts, 1):
        body += struct.pack("<HHIQ", i, 1, 0, len(t)) + t + b"\0" * (-len(t) % 8)
    n = size or max(256, 16 + len(body) + 16)
    body += struct.pack("<HHIQ", 0, 0, 0, max(0, n - 16 - len(body)))
    return (b"GCOL" + struct.pack("<B3xQ", version, n) + body).ljust(n, b"\0") if n < 1 << 20 else b"GCOL" + struct.pack("<B3xQ", version, n) + body


ok = heap([b"the", "naïve".encode(), b"\n", b"x" * 40])
save("whole", [(3, 64, 1), (6, 64, 2), (1, 64, 3), (40, 64, 4)], b"\0" * 64 + ok)
save("too_long", [(4, 64, 1), (2**32 - 1, 64, 2), (3, 64, 9), (3, 64, 0)], b"\0" * 64 + ok)
save("shorter_reference", [(1, 64, 4), (2, 64, 4), (0, 64, 1), (3, 2**64 - 1, 1)], b"\0" * 64 + ok)
save("outside", [(3, 10**6, 1), (3, 2**63, 1), (3, 300, 1), (3, 64 + len(ok) - 8, 1)], b"\0" * 64 + ok)
save("huge_size", [(3, 0, 1)], heap([b"the"], 2**62))
save("no_size", [(3, 0, 1)], b"GCOL" + struct.pack("<B3xQ", 1, 0) + b"\0" * 64)
save("version", [(3, 0, 1)], heap([b"the"], version=2))
save("object_too_long", [(3, 0, 1)], b"GCOL" + struct.pack("<B3xQ", 1, 64) + struct.pack("<HHIQ", 1, 1, 0, 2**63) + b"\0" * 32)
save("truncated", [(3, 64, 1)], (b"\0" * 64 + ok)[:100])
raw = bytes(range(256)) * 4
save("packed", [(64, 0, 0)], zlib.compress(raw + b"!", 1))
save("packed_damaged", [(64, 0, 0)], zlib.compress(raw + b"!", 1)[:-7] + b"1234567")
