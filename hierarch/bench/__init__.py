"""How fast networks are, side by side: specs, and peers of other libraries and runtimes."""

from hierarch.bench.run import benchmark as benchmark
