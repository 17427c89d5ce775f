"""Numbers that compare samples with real data, and the features in which they do it."""
