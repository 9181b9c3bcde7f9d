"""The verifier's questions to a trajectory, a module for each kind."""
