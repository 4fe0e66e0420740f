"""Graph separation (arXiv 2306.02866, section 4.1): data, models and its five experiments, one module each."""
