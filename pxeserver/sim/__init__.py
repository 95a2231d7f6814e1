"""Firmware that boots from the network, simulated: what it sends, what it takes, what it asks for next.

A machine (`machine.boot`) is a generator: it yields what it wants of the world (`effects`) and is sent what came of it.
It holds no socket and no clock, so that the same machine plays over a real network (`world`) and in a test's own time.
"""
