"""Networks as files of other runtimes, each run there and compared with torch as it is written."""
