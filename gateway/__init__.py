"""Outlay's data plane: forwards, meters, prices, enforces budgets and writes the journal."""
