"""Write an adapter's folder: weights, manifest, card and plots."""
