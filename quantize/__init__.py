"""Encoders -> int8 artefacts, in one exported graph and with every operator accounted for.

    run -> quantizer (calibration, distillation) -> export (one graph) -> passes
        -> targets (one file per backend) -> audit (no float operator) -> pack (NAME.embridge)

layers              brevitas layers for the `watch` encoder; the table of recipes
settle              values put on the grid that backends compute on, so that codes are equal
graph_check, audit  what the graph and the artefacts really compute
stages              any stage of a package as one kind of encoder
run                 `embridge quantize` and `embridge lower`
"""
