"""Bytes to meaning and back: pure, no await, no network.

Towards the caller there is one form, JSON; towards the upstream two, protobuf and JSON (`Flavour`).
What many callers ask for leaves as one request without being decoded again: a protobuf message is
the concatenation of its fields, and JSON texts are joined by commas. So merging costs a copy, and a
field that this package has never heard of survives.

`tinker_pb2` is generated from `tinker.proto`, which says how.
"""
