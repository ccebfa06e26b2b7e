"""What our own loader is made of: batches, features of events, shuffled streams, and the collator.

permutation -> stream    which samples come when: shuffled, sharded, resumed
batch, features          what a sample is made of
collator                 from samples to a model's inputs; it needs torch

samples.py and torch_samples.py beside this folder put them together.
"""
