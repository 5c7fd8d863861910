"""Baselines that an adapter is compared with, trained on the same rows: linear map, full fine-tuning, two-sided."""
