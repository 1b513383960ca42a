"""What runs on the edge board or the watch; never imports torch.

    samples -> frontend (filters, normalisation) -> windows -> runtimes (int8 encoder)
            -> decision (nearest poses, rejection, debouncing) -> events

gallery_codes       galleries at 8, 4 and 1 bit, and as prototypes
recordings          one view on every kind of recording; emg2pose, ninapro (ninapro_subjects: who
                    was left-handed), libemg_csv: the formats
data_check          what a folder of recordings holds, and what is wrong with it
frontend, windows   from samples to encoder input: also what training uses
manifest, package   the model package and its checks
runtimes            LiteRT and ExecuTorch without torch (executorch_library: its shim)
decision            k-nearest-neighbour vote, rejection, debouncing
pipeline            all of it on a stream, and on a whole recording for comparison
source, sources     what a live run reads; from a URL to it (urls: their options)
foreign             other people's devices: Myo, Cyton, BrainFlow's boards
recorder            `embridge record`; prompts: who labels; stream_file, growing_hdf5: files that
                    are whole after a kill at any byte
replay, tape        recordings through the same path as live streams
signal_check        `embridge check`
live, sessions      what the verbs do with files, ports and signals
sinks, lsl          where gestures go: JSON lines, UDP, LibEMG, Lab Streaming Layer
embed               `embridge embed`
errors              what can go wrong with a user's files
"""
