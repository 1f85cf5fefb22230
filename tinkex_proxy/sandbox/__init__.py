"""A small real trainer that speaks the Tinker wire. A sandbox, not a service."""
