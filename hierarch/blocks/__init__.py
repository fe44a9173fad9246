"""How a block joins mixer, MLP and norms, one file each. The file's name is the part's name."""
