"""Rows of files, of a mirror and of the hub: from bytes to columns by role."""
