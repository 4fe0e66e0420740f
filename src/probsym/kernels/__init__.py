"""Fast paths, each beside a plain reference that computes the same, and one file that says which values may be read.

Torch alone is imported here. Groups, nets and everything above import from here, and nothing here imports from them.
The tests of a file are in `tests/kernels/test_FILE.py`: those of `gram_schmidt` beside `orthonormal`, and those of
Triton in `tests/test_cuda.py`.

| file | fast path | what it is | reference |
|---|---|---|---|
| `gathers` | `gather_nodes` | y_i = x_{index_i}, whole rows | `gather_nodes_reference` |
| | `gather_pairs` | y_ij = x_{index_i index_j}, one gather | `gather_pairs_reference` |
| | `inverse_index` | the inverse of an index, by a scatter | `index.argsort(-1)` |
| `straight_through` | `AttachNodes` | the gradient of P x to the soft matrix P | `attach_nodes_reference` |
| | `AttachPairs` | the gradient of P x P^T to P | `attach_pairs_reference` |
| `orthonormal` | `orthonormalise` | Gram-Schmidt of a batch, at every rank | `orthonormalise_reference` |
| `gram_schmidt` | `GramSchmidt` | two and three columns in closed form | `orthonormalise` |
| `sinkhorn` | `soft_permutation_gradient` | the gradient in closed form | autograd of `log_soft_permutation` |
| | `soft_permutation_token` | zeros with that gradient | `soft_permutation_token_reference` |
| `sinkhorn_triton` | `matrix`, `slopes` | the same on a GPU, one matrix per block | `sinkhorn` on a CPU |
| `precision` | `matmul` | a product that nothing narrows | `torch.matmul` in float64 |
| `values` | `readable` | which values may be read | a row per follower |
"""
