"""The relay: tbots report to it over the network, and it hands their starts to one Collector.

It asks for no consent: a tbot reports only if its own user opted in.
"""
