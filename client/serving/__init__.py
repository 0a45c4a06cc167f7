"""A silo's own recommender: global, own and content scores, mixed at home."""

from .recommender import Explained, Recommender, fit_recommender

__all__ = ["Explained", "Recommender", "fit_recommender"]
