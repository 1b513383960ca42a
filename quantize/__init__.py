"""Encoders -> int8 artefacts, in one exported graph and with every operator accounted for.

    run -> quantizer (recipes: ranges, fine-tuning, mixed bits) -> export (one graph) -> passes
        -> targets (one file per backend) -> audit (no float operator) -> pack (NAME.embridge)

recipes               the table of recipes
layers, settle        brevitas layers of `watch`; values put on the grid that backends compute on
quantizer, calibration, finetune   ranges from real windows; distillation with fake quantization
mixed                 what each layer's quantizer costs alone, and which deserve 8 bits
base_layers, base_quantizer   the same for `base`: its linears in integers
contract, graph_check, audit  what must be integer, and what graph and artefacts really compute
kernels, inspection   which kernels really ran; `embridge audit`
stages, onnx_encoder, cortex_reference   any stage of a package as one kind of encoder
run                   `embridge quantize` and `embridge lower`
"""
