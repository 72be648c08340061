"""Speed and memory of the shipped model beside named peers, measured in turn in one run."""

from arbitrary_nst.benchmark.command import BenchmarkConfig, benchmark

__all__ = ["BenchmarkConfig", "benchmark"]
