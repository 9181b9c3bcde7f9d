"""Episodes and the trajectories they leave: settings, metrics, intervals."""
