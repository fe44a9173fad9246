"""Benchmarks of specs beside networks of other libraries and runtimes."""

from hierarch.bench.explaining import explain_specs as explain_specs
from hierarch.bench.run import benchmark as benchmark
