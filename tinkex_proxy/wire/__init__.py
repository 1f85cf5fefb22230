"""Bytes to meaning and back: pure, no await, no network."""
