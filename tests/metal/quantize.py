"""Run by path inside the Metal engine environment: `quantize.py CHECKPOINT OUT BITS`, by mlx_lm's own means."""

from __future__ import annotations

import sys

import mlx_lm

if __name__ == "__main__":
    source, out, bits = sys.argv[1:]
    mlx_lm.convert(source, out, quantize=True, q_bits=int(bits), q_group_size=64)
    print("{}")
