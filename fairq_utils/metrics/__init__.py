"""Who is served how well: accuracies, gaps, and their changes, with intervals."""
