"""Samples: questions, choices, annotations, and whether an answer is right."""
