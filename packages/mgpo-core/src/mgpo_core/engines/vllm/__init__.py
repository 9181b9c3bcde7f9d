"""The engines on vLLM: in this process, and on a server started for training."""
