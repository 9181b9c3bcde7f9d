"""What a run leaves behind: its folder, metrics, curves, report, summary, model card and uploads."""
