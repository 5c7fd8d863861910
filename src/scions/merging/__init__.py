"""Average, compare and prune adapters' tensors; pure functions."""
