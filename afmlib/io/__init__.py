"""Storage on any file system, and atomic checkpoints that cannot run code."""
