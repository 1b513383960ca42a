"""The paper's figures for a trained encoder, and the figures published for others beside them.

confusion     who decided what: counts for each user, over windows and over repetitions by vote
zero_shot     seen, unseen and generalised zero-shot, by k nearest poses and by class means
probe         logistic regression on frozen features, across users and from a few repetitions
published     the published figures with their sources; published.toml holds them
"""
