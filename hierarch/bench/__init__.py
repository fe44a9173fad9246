"""Benchmarks of specs beside networks of other libraries and runtimes."""

from hierarch.bench.explaining import explain_specs as explain_specs
from hierarch.bench.run import benchmark as benchmark
from hierarch.bench.stream import benchmark_stream as benchmark_stream
from hierarch.bench.stream_sizes import folder_sizes as folder_sizes
from hierarch.bench.stream_sizes import random_sizes as random_sizes
