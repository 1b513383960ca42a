"""The referee of zero-shot figures on NinaPro DB1 exercise 1, and the baselines to beat.

    recordings -> data (windows of one user) -> splits (who and what is held out)
      -> protocol (all that a method gets to see) -> referee -> scores -> tables

data                          windows and glove statistics of one user
splits                        three user rotations x three folds of four unseen gestures
protocol                      TrainSet, Gallery, UserData, the Method that later encoders implement
referee, decide, scores       who decided what, as confusion counts; figures and intervals from them
features, alignment, random_features, solve
                              what the baselines are made of
ridge, lda, glove             the baselines: T0 to T3, seen gestures only, upper bound
tables                        all of them in one run -> values for JSON, text and markdown
"""
