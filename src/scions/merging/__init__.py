"""Pure functions over adapters' tensors."""
