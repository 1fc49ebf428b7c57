"""Embeddings: the neutral form in `base`, and one module for each API."""
