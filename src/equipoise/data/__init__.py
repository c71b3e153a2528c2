"""Rows from files and hubs, and their rendering into tokens and loss masks."""
