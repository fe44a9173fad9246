"""Grids of runs: networks that differ in one thing, trained alike with several seeds, and whether
the differences are larger than chance.

`grid` reads what is compared, `cells` runs one network with one seed, `executors` runs them all,
here or on a cluster, `running` does the whole, and `statistics` says what came of it.
"""
