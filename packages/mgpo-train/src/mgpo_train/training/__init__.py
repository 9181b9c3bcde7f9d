"""The trainers: multi-turn GRPO on TRL's, SFT, rollouts on both engines, and what happens around a step."""
