"""The board itself: what it has, and what is missing."""
