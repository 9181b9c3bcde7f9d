"""The haystack world's tiny Qwen2.5-VL: architecture and the recipe of its base checkpoint."""
