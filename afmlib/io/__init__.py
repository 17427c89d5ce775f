"""Storage on any file system, and checkpoints that are whole or not there; no code in them."""
