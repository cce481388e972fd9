"""A chained CNI plugin that keeps the rules of pods through any backend of meshfw."""
