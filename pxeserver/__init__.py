"""From a LinuxKit spec to a running diskless machine."""

__version__ = "0.1.0"
