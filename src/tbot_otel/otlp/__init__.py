"""The official OTLP exporters: which one the variables select, how it is built, what it answers.

This module imports nothing: `environment` is on the path of every ``tbot-otel run``.
"""
