"""Data sets as samples: JSONL, parquet, folders, the hub and haystack, in every layout that is recognised."""

from mgpo_train.data.sources import SampleSet, load_samples

__all__ = ["SampleSet", "load_samples"]
