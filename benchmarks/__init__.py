"""What proves it: every stage on the same windows, latency, the live stream against offline.

accuracy    all stages of a package, with reference rows
evaluation  `embridge eval`: one stage of a run or package
latency     one window, one thread, this machine
live_check  a virtual wrist in its own process, read through a port
report      JSON and Markdown
demo        the main job end to end
"""
