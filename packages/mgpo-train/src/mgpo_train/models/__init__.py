"""The policy: loading, LoRA, frozen parts, weights into folders and back out of checkpoints."""
