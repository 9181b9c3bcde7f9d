"""Trajectories made visible: boxes drawn on images, an HTML fragment per trajectory, a report page for a run."""

from mgpo_core.render.card import trajectory_html
from mgpo_core.render.draw import COLORS, draw_boxes
from mgpo_core.render.page import report_style, write_report

__all__ = ["COLORS", "draw_boxes", "report_style", "trajectory_html", "write_report"]
