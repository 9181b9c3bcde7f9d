"""The options of a run: dataclasses, recipes, the command line, and the checks that need no torch."""
