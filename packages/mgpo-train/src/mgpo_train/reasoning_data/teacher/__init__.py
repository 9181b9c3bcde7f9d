"""Traces by a teacher: a model behind an OpenAI-compatible server that is given the annotations."""
