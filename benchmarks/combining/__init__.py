"""Parts of `benchmarks/mixing.py`: domains, adapters, mixtures, routing and pruning as cells, and the report."""
