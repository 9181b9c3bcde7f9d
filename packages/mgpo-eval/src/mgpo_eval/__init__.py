"""Evaluation in lmms-eval of models that look closer: the models on three engines, tasks, and a report."""
