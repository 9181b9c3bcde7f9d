"""Evaluation of MGPO models in lmms-eval: a skeleton that holds nothing yet.

Until it is filled, `mgpo-train` measures its models before and after training on held-out samples.
"""
