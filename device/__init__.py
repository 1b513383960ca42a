"""What runs on the edge board or the watch; never imports torch.

    samples -> frontend (filters, normalisation) -> windows -> runtimes (int8 encoder)
            -> decision (nearest poses, rejection, debouncing) -> events

gallery_codes       galleries at 8, 4 and 1 bit, and as prototypes
recordings          one view on every kind of recording; emg2pose, ninapro: the formats
data_check          what a folder of recordings holds, and what is wrong with it
frontend, windows   from samples to encoder input: also what training uses
manifest, package   the model package and its checks
runtimes            LiteRT and ExecuTorch without torch (executorch_library: its shim)
decision            k-nearest-neighbour vote, rejection, debouncing
pipeline            all of it on a stream, and on a whole recording for comparison
sources             where samples come from: a port, or a recording
live, sessions      `embridge run` and `embridge calibrate`
embed               `embridge embed`
errors              what can go wrong with a user's files
"""
