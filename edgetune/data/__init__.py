"""Rows of text: one reader for all commands.

sources (which files) → lines (unpacked, decoded) → text_files, parquet_files (records) → tables → labelled, requests
"""
