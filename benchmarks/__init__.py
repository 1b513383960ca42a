"""What proves it: every stage on the same windows, speed, the live stream against offline.

parity        `embridge parity`: float -> fake quantization -> graph -> each artefact
  parity_windows, parity_stages, parity_pairs, parity_report; first_divergence: the layer where two
  stages part (artefact_cuts, xnnpack_cut: an artefact cut after each layer)
kept          `embridge bench accuracy`: what int8 and a compressed gallery keep; kept_report
sensitivity   `embridge bench sensitivity`: what each layer's quantizer alone costs
speed         `embridge bench latency`: all runtimes side by side (contestants, latency)
sizes         `embridge bench sizes`: what s, m and l of the `watch` encoder cost
npu           `embridge bench npu`: compilers' estimates
evaluation    `embridge eval`: one stage of a run or package, zero-shot
  probing: --probe, linear probe and few-shot; paper_rows: --table; activations:
  --false-activations; plots and pictures draw them
methods       `embridge bench methods`: train and compare methods, also with less data
accuracy, live_check, report, demo   the main job end to end
"""
