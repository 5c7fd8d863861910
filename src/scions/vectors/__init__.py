"""Files of vectors, each with a record of its space."""

from scions.vectors.embed import EmbedReport, embed_file

__all__ = ["EmbedReport", "embed_file"]
