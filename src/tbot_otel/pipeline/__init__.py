"""Records that come from a pipeline, or go into one: exporter, processor, detector."""
