"""What semantic IDs do for recommendation: the same questions to a small model over SIDs, and to baselines.

questions.py says what is asked, ranking.py how an answer counts, baselines.py who answers without SIDs. A
probe is codes.py (SIDs as arrays), network.py, training.py and decoding.py, which probe.py puts together in
the budget of settings.py. standing.py asks all of them about one release and keeps the answers (kept.py);
side_by_side.py lays several out as one.
"""
