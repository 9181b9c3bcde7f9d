"""MGPO's core: samples, boxes, crops, episodes and trajectories, and the engines that run them. Imports no torch."""

from mgpo_core.answers import grade
from mgpo_core.boxed_answer import extract_boxed
from mgpo_core.boxes import Box, CoordinateSpace, ParseResult, Rejection, iou, parse_boxes
from mgpo_core.budget import PixelBudget
from mgpo_core.cropping import CropOutcome, CropRules, crop
from mgpo_core.episode import Episode
from mgpo_core.errors import EngineError, ImageError, MGPOError, SampleError, Stopped, TokenAlignmentError
from mgpo_core.image_loading import load_image
from mgpo_core.sample import Sample
from mgpo_core.templates import SingleTurn, TwoTurn
from mgpo_core.trajectory import Trajectory

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
