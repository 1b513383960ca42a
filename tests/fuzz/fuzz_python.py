"""The Python side under atheris (libFuzzer for Python), which is no dependency of the project.

python -m venv VENV && VENV/bin/pip install atheris==3.0.0 numpy==2.1.3 cobs==1.2.2 pyserial==3.5
PYTHONPATH=src VENV/bin/python tests/fuzz/fuzz_python.py -runs=10000000 -max_len=500 CORPUS
"""

import sys

import atheris

with atheris.instrument_imports(include=["embridge.firmware_bridge", "targets"]):
    import targets

atheris.Setup(sys.argv, targets.check)
atheris.Fuzz()
