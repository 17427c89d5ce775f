"""The cost and speed of contenders, before training.

A worker per contender (:mod:`.program`) counts parameters and floating-point operations on meta
tensors (:mod:`.counting`), then measures samples and iterations of training (:mod:`.measuring`).
Anything that does not fit into memory or takes too long is skipped, and the results say why.
"""
