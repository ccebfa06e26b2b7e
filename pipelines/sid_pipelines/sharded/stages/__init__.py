"""One module for each stage that runs by shards; dividing and rounds belong to clean, pieces to ingest."""
