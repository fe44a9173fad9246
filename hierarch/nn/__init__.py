"""The network, as in the papers. Nothing here asks how it runs: see `hierarch.engine`."""
