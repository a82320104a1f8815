"""Makes the files in fixtures/ with wfdb-python, a tool independent of this crate.

    pip install wfdb==4.3.1 && python make_fixtures.py

The expected values stand in golden.rs.
"""

import os

import numpy as np
import wfdb

os.chdir(os.path.join(os.path.dirname(os.path.abspath(__file__)), "fixtures"))


def write(name, fmt, columns, **more):
    samples = np.array(columns, dtype="int64").T
    lead_n = samples.shape[1]
    wfdb.wrsamp(
        name,
        fs=more.pop("fs", 360),
        units=more.pop("units", ["mV"] * lead_n),
        sig_name=more.pop("sig_name", ["MLII", "V5"][:lead_n]),
        d_signal=samples,
        fmt=[fmt] * lead_n,
        adc_gain=more.pop("adc_gain", [200.0] * lead_n),
        baseline=more.pop("baseline", [1024] * lead_n),
        **more,
    )


# One lead, an odd number of samples, both extremes and an invalid sample (-2048).
write("odd212", "212", [[0, 1, -1, 2047, -2047, -2048, 995]])
# Two leads, a time, a date and comments.
write(
    "two16",
    "16",
    [[100, -32767, 32767, -32768, 5], [-7, 0, 7, 14, 21]],
    fs=257.5,
    units=["mV", "mmHg"],
    sig_name=["V1, upper", "ABP"],
    adc_gain=[1000.0, 12.5],
    baseline=[0, -3],
    comments=["first comment", "age: 69"],
    base_time=__import__("datetime").time(9, 30, 0, 250000),
    base_date=__import__("datetime").date(1989, 4, 25),
)
# The other formats that wfdb-python writes.
write("one24", "24", [[0, -1, 8388607, -8388607, -8388608]])
write("one32", "32", [[0, -1, 2147483647, -2147483647, -2147483648]])
write("two80", "80", [[0, 127, -127], [1, -128, 3]])

# Everything that an annotation can carry: a SKIP of one and of two words, sub, chan, num and odd and even aux.
wfdb.wrann(
    "two16",
    "atr",
    sample=np.array([0, 5, 1028, 1029, 70000, 3000000000]),
    symbol=["+", "N", "V", "~", "A", "/"],
    subtype=np.array([0, 0, 0, 1, 0, 3]),
    chan=np.array([0, 0, 1, 1, 0, 0]),
    num=np.array([0, 2, 2, 0, 0, 5]),
    aux_note=["(AFIB", "", "", "", "even", ""],
)
# The frequency of its own, and a code that it defines.
import pandas as pd

wfdb.wrann(
    "two16",
    "qrs",
    sample=np.array([10, 20]),
    symbol=["N", "z"],
    fs=250,
    custom_labels=pd.DataFrame({"label_store": [42], "symbol": ["z"], "description": ["a code of my own"]}),
)
