"""Our tasks for lmms-eval: YAML files, and the functions and classes that they name."""
