"""The version of jaxface: this is the only place that tells it, and pyproject.toml reads it from here."""

__version__ = "0.2.0"
