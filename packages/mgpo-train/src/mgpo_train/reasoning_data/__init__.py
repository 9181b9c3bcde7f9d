"""Reasoning data for MIRG-RL's first stage: traces written from annotations, and verified against them."""
