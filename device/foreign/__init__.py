"""Other people's devices as sources, each with the protocol of `device.source.Source`.

myo               Myo armband over BLE: 8 channels, 200 Hz, int8
cyton             OpenBCI Cyton on a serial port: 8 channels, 250 Hz, 24 bits narrowed to 16
brainflow_board   any board that BrainFlow reads

base              connecting, reconnecting and silence, common to them
counting          frames numbered modulo something -> blocks and gaps on one sample index
cyton_packets     bytes <-> the Cyton's packets; resynchronises after damage
narrowing         wide values -> int16 counts, nothing clipped in silence

None of these devices declares what it sends, as our own wrists do; `StreamInfo` is filled from
their published protocols.
"""
