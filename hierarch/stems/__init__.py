"""What turns an image into tokens, one file each. The file's name is the part's name."""
