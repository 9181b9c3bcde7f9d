"""Where annotated sets come from: files in this project's own schema, COCO-style annotations, and haystack_multi."""

from mgpo_train.reasoning_data.readers.annotations import Annotations
from mgpo_train.reasoning_data.readers.source import AnnotationSource, read_annotations

__all__ = ["AnnotationSource", "Annotations", "read_annotations"]
