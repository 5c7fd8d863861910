"""The parts of the benchmark `domain_adaptation`: domains, cells, speed, records, tables."""
