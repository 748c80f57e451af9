"""The console: pages that show what the ledger knows, made here and sent whole. See docs/console.md."""
