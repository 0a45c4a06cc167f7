"""A silo's own recommender: global, own and content scores, mixed at home."""

from .published import GlobalParts, Published
from .recommender import PARTS, Explained, Recommender, fit_recommender

__all__ = ["PARTS", "Explained", "GlobalParts", "Published", "Recommender", "fit_recommender"]
