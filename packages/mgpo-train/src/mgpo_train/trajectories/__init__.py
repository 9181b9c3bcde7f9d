"""Reasoning trajectories for MIRG-RL's first stage: written from annotations, and checked against them."""
