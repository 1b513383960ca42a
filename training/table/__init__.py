"""The referee of zero-shot figures on NinaPro DB1 exercise 1, and the baselines to beat.

    recordings -> data (windows of one user) -> splits (who and what is held out)
      -> protocol (all that a method gets to see) -> referee -> scores -> tables

data                          windows and glove statistics of one user
splits                        three user rotations x three folds of four unseen gestures
protocol                      TrainSet, Gallery, UserData, the Method that later encoders implement
referee, decide, scores       who decided what, as confusion counts; figures and intervals from them
features, alignment           what the baselines are made of
ridge, lda                    the baselines: T0 to T3 and the upper bound, seen gestures only
forward, guess                the map from pose to EMG, and what it learns of a user without labels
novelty, stacking             handicap of seen gestures where all compete, for any method
entries, tables, results      all of them in one run -> values for JSON, text and markdown
"""
