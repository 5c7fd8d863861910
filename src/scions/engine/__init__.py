"""Transformer layers over packed tokens, forward and backward."""
