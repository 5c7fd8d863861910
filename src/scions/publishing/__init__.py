"""What is written into an adapter's folder."""
