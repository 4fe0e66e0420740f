"""Fast paths, each beside a plain reference that computes the same, and one file that says which values may be read.

Torch alone is imported here. Groups, nets and everything above import from here, and nothing here imports from them.

| fast path | what it is | reference | test |
|---|---|---|---|
| `gathers.gather_nodes` | y_i = x_{index_i}, rows copied whole | `gather_nodes_reference` | `test_gathers.py` |
| `gathers.gather_pairs` | y_ij = x_{index_i index_j}, one gather | `gather_pairs_reference` | `test_gathers.py` |
| `gathers.inverse_index` | the inverse of an index, by a scatter | `index.argsort(-1)` | `test_gathers.py` |
| `straight_through.AttachNodes` | the gradient of P x to the soft matrix P | `attach_nodes_reference` | `test_straight_through.py` |
| `straight_through.AttachPairs` | the gradient of P x P^T to P | `attach_pairs_reference` | `test_straight_through.py` |
| `orthonormal.orthonormalise` | Gram-Schmidt of a batch, at every rank | `orthonormalise_reference` | `test_orthonormal.py` |
| `gram_schmidt.GramSchmidt` | the closed form of two and three columns | `orthonormalise` | `test_orthonormal.py` |
| `sinkhorn.soft_permutation_gradient` | Sinkhorn's gradient in closed form, in pages | autograd of `log_soft_permutation` | `test_sinkhorn.py` |
| `sinkhorn.soft_permutation_token` | zeros with that gradient | `soft_permutation_token_reference` | `test_sinkhorn.py` |
| `sinkhorn_triton` | the same on a GPU, a matrix per block | `sinkhorn` on a CPU | `tests/test_cuda.py` |
| `precision.matmul` | a product that nothing narrows | `torch.matmul` in float64 | `test_precision.py` |
| `values` | which values may be read | one row per follower | `test_values.py` |

Tests lie in `tests/kernels/` unless a folder is given.
"""
