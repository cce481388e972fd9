"""The author's kit: what a new plugin begins as, from the templates beside this module."""
