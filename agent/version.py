"""The version of this software, as its package metadata names it."""

from importlib import metadata
from typing import Final

VERSION: Final = metadata.version("lineside")
