"""Cells and tables of `benchmarks/preservation.py`."""
