"""Files as other programs write them, streamed and without those programs; see folder.py first."""
