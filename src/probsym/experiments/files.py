"""Files that are whole or absent, under the name that this floor uses."""

from probsym.files import write

__all__ = ["write"]
