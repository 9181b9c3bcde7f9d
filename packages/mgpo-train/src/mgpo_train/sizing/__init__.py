"""How large a run is, without loading a weight: `--dry-run`, memory, seconds a step."""
