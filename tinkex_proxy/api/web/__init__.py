"""The web page at `/`: files that are served as they are, and what serves them."""
