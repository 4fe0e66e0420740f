"""Fast paths, each beside a plain reference that computes the same, and one file that decides when values may be read.

Torch alone; groups, nets and everything above import from here, and nothing here imports from them.
"""
