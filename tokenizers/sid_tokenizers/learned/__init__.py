"""Schemes that train networks with torch: RQ-VAE and what is built on it, FSQ, PRISM, experts, SETRec.

Their `*_training.py` and `*_network.py` are the doors to torch; what they learned runs in numpy.
"""
