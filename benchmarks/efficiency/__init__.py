"""What contenders cost and how fast they are, before anything is trained.

Each is counted and measured in a process of its own (:mod:`efficiency.process`), one after the
other (:mod:`efficiency.program`). What is counted are parameters and floating-point operations, on
tensors without memory (:mod:`efficiency.counting`); what is measured are samples
(:mod:`efficiency.sampling`) and iterations of training (:mod:`efficiency.training`). What would not
fit into memory or take too long is computed instead, from the count, and marked.
"""
