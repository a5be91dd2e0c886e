"""The version of yolokd."""

__version__ = "0.1.0"
