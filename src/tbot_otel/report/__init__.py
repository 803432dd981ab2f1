"""The report: what the starts in a Collector's files have in common."""
