"""What formats take out of a release in the same way: graphs, queries, categories, digits, draws."""
