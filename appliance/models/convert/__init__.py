"""GGUF to a Hugging Face or MLX directory. Runs inside an engine environment, started by path, needing numpy alone."""

VERSION = 3
"""Part of every cached conversion's name: raise it when the same GGUF would convert to other bytes."""
