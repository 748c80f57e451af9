"""Simulated providers and the developers' tools that call them: real sockets and wire formats, made-up content."""
