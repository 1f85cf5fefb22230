"""What callers see: plain calls, operations, errors."""
