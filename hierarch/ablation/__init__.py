"""Grids of runs: networks that differ in one thing, trained alike with several seeds, and whether
the differences are larger than chance.

`grid` says what is compared, `plan` works it out, `cells` runs one network with one seed,
`executors` runs them all, here or on a cluster, `running` does the whole, and `plotting` draws what
came of it. What the numbers show is in `hierarch.statistics`.
"""
