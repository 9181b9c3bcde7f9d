"""Checks a trace: its claims and its answer against the annotations, of its prose only the form."""

from mgpo_train.reasoning_data.verifier.problems import Problem, Reason
from mgpo_train.reasoning_data.verifier.verify import Verifier

__all__ = ["Problem", "Reason", "Verifier"]
