"""MGPO's core: samples, boxes, crops, episodes and trajectories, and the engines that run them. Imports no torch."""

from mgpo_core.boxes.boxed_answer import extract_boxed
from mgpo_core.boxes.parse import Box, CoordinateSpace, ParseResult, Rejection, iou, parse_boxes
from mgpo_core.episodes.episode import Episode
from mgpo_core.episodes.trajectory import Trajectory
from mgpo_core.errors import EngineError, ImageError, MGPOError, SampleError, Stopped, TokenAlignmentError
from mgpo_core.images.budget import PixelBudget
from mgpo_core.images.crop import CropOutcome, CropRules, crop
from mgpo_core.images.load import load_image
from mgpo_core.samples.grading import grade
from mgpo_core.samples.sample import Sample
from mgpo_core.templates.single_image import SingleTurn, TwoTurn

__all__ = [
    "Box",
    "CoordinateSpace",
    "CropOutcome",
    "CropRules",
    "EngineError",
    "Episode",
    "ImageError",
    "MGPOError",
    "ParseResult",
    "PixelBudget",
    "Rejection",
    "Sample",
    "SampleError",
    "SingleTurn",
    "Stopped",
    "TokenAlignmentError",
    "Trajectory",
    "TwoTurn",
    "crop",
    "extract_boxed",
    "grade",
    "iou",
    "load_image",
    "parse_boxes",
]
