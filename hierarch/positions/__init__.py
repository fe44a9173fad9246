"""Position embeddings, one file each. The file's name is the part's name."""
