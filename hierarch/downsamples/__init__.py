"""What opens a stage, one file each. The file's name is the part's name."""
