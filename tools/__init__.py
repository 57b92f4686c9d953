"""What keeps the repository true, run as `python -m tools.NAME`. Nothing in utils/ imports from here."""
