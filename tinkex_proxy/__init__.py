"""A sidecar that turns the Tinker training API into plain HTTP calls."""
