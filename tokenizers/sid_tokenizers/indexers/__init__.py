"""Schemes that give items IDs by what is known of them: trees, categories, clusters of users, order, words.

../indexer.py says what such a scheme is. paths.py is what all share; then a file or two for each.
"""
