"""Which adapter a text belongs to."""
