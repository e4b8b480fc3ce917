"""Latency benchmarks of a bundle's tasks: contenders, timings, pictures."""
