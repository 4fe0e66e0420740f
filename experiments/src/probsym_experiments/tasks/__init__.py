"""Learning on graphs of different sizes (arXiv 2306.02866, sections 4.3 and 4.4): nodes, pairs, whole graphs."""
