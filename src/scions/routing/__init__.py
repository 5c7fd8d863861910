"""Decide which adapter texts belong to."""
