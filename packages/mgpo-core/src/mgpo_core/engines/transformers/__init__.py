"""The engine on a transformers model in this process: cached, batched, one image encoded once."""
