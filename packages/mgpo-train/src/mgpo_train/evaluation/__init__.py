"""Evaluation of a policy: on held-out samples, on lmms-eval's tasks, and between training steps."""
