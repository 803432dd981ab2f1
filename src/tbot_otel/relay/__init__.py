"""The relay: tbots report to it over the network, and it exports their starts to one Collector.

It asks for no consent of its own: a tbot reports only if its user opted in.
"""
