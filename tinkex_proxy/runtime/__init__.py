"""Every await: sockets, sessions, futures, timers."""
