"""Two independent counts of a network's cost: the claim of its spec, and fvcore's count."""

from hierarch.complexity.counter import Counts as Counts
from hierarch.complexity.counter import count as count
from hierarch.complexity.counter import count_rule as count_rule
from hierarch.complexity.peers import measure_peer as measure_peer
from hierarch.complexity.witnesses import default_sizes as default_sizes
from hierarch.complexity.witnesses import measure as measure
