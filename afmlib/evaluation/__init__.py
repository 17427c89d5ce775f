"""From a model or a file of samples to numbers with a protocol."""
