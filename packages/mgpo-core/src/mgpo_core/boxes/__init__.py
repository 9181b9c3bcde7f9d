"""Boxes: coordinates, and reading them out of what a model or a data set wrote."""
