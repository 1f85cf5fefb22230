"""Pure decisions: no await, no clock, no network, no log."""
