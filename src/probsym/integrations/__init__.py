"""Bridges to other libraries, one folder or file a library; only here are optional dependencies imported."""
