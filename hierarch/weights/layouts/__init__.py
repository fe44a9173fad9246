"""One module per library, named after it, that registers the library's layouts."""
