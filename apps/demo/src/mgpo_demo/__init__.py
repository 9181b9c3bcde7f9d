"""The interactive demo of MGPO episodes: a skeleton that holds nothing yet.

Until it is filled, the `report.html` that `mgpo-train` writes shows the episodes of a run.
"""
