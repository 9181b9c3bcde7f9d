"""Several processes: layouts, launch checks, a rank that fails, checkpoints in shards."""
