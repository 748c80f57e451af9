"""Outlay's control plane: seals the journal, joins spend to delivered work, reports."""
