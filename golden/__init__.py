"""Test vectors for ports to other languages;
README.md describes them, `python -m golden` checks and writes them.
"""
