"""`auto`: the texts choose their adapter."""
