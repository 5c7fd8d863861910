"""Other ways to the same end, scored on the same rows."""
