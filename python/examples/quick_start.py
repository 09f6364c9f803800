"""The quick start of the README."""

import kastor

tele = kastor.enable()
with tele("pipeline", files=3):
    for _ in range(3):
        with tele("parse"):
            tele.count("bytes", 512)
print(tele.report())
