"""One file for each trainer's format; the registry is in sid_pipelines/trainers/__init__.py."""
