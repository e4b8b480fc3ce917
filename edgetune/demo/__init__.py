"""The demo: the whole workflow, on data from the package."""
