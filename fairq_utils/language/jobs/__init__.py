"""One module a stage, with one function that is given values and returns what is to be kept."""
