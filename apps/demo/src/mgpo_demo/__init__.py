"""The demo: see a vision-language model look closer, and look for it. `mgpo-demo` starts it.

Nothing here knows of training or evaluation; episodes, crops and trajectories are those of `mgpo_core`.
"""
