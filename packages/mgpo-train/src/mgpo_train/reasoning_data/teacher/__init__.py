"""Traces by a teacher: a model behind an OpenAI-compatible server that is told the annotations."""
