"""What training runs and evaluations leave behind, read again: logs, samples, trajectories."""
