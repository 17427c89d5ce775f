"""Building blocks of networks, independent of the role of a network."""
