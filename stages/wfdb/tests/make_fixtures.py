"""Makes the files in fixtures/ with wfdb-python, a tool independent of this crate.

    pip install wfdb==4.3.1 && python make_fixtures.py

The expected values stand in golden.rs, or in NAME.expected: one line a signal, as wfdb-python read the files, `-` for an
invalid sample.
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


# What wfdb-python reads but does not write: bytes of no meaning, read by it.
noise = np.random.default_rng(2025)


def expect(name):
    """Writes the ADC units that wfdb-python reads from a record."""
    # In physical units and back: reading ADC units fails for format 61 with `smooth_frames=False`.
    record = wfdb.rdrecord(name, smooth_frames=False, ignore_skew=False)
    lines = []
    for column, gain, baseline in zip(record.e_p_signal, record.adc_gain, record.baseline):
        lines.append(" ".join("-" if np.isnan(value) else str(round(value * gain + baseline)) for value in column))
    with open(name + ".expected", "w") as file:
        file.write("\n".join(lines) + "\n")


def raw(name, header, **files):
    with open(name + ".hea", "w") as file:
        file.write(f"{name} {header}")
    for extension, content in files.items():
        with open(f"{name}.{extension}", "wb") as file:
            file.write(content)
    expect(name)


def signal(name, fmt, initial=""):
    return f"{name} {fmt} 200(0)/mV 12 0 {initial}".rstrip() + "\n"


for name, fmt, byte_n in [("raw61", "61", 60), ("raw160", "160", 60)]:
    raw(name, "3 360 10\n" + 3 * signal(name + ".dat", fmt), dat=noise.bytes(byte_n))
# All 30 bits of a word are samples, the upper two of format 311 are 0.
words = noise.integers(0, 1 << 30, 11, dtype=np.uint32).astype("<u4").tobytes()
raw("raw310", "3 360 11\n" + 3 * signal("raw310.dat", "310"), dat=noise.bytes(44))
raw("raw311", "3 360 11\n" + 3 * signal("raw311.dat", "311"), dat=words)
# Ends of one and of two samples.
raw("one310", "1 360 4\n" + signal("one310.dat", "310"), dat=noise.bytes(4) + b"\xfe\x03")
raw("two310", "2 360 1\n" + 2 * signal("two310.dat", "310"), dat=bytes([0x34, 0x05, 0x9C, 0x02]))
raw("one311", "1 360 4\n" + signal("one311.dat", "311"), dat=words[:4] + b"\xfe\x03")
raw("two311", "2 360 1\n" + 2 * signal("two311.dat", "311"), dat=bytes([0x34, 0x56, 0x0C, 0x00]))
# Differences, from initial values on.
raw(
    "raw8",
    "2 360 25\n" + signal("raw8.dat", "8", "100") + signal("raw8.dat", "8", "-7"),
    dat=noise.bytes(50),
)
# Skews, several samples a frame, a byte offset and two files at once. Two things that wfdb-python gets wrong are left out:
# signals of one file that are late by different times, and late signals of several samples a frame.
raw(
    "skewed",
    "4 360 12\n"
    + signal("skewed.dat", "16:3+5")
    + signal("skewed.dat", "16x2+5")
    + signal("skewed.dat", "16:3+5")
    + signal("skewed.d2", "212:2"),
    dat=noise.bytes(5 + 12 * 4 * 2),
    d2=noise.bytes(18),
)


# Smooth, with a little noise, as the rule in golden.rs has it.
def wave(sample_n, lead_idx, height):
    idx = np.arange(sample_n) + 37 * lead_idx
    phase = idx % 200
    return phase * (200 - phase) * height // 10000 + idx * 7919 % 13 - height // 2


write("flac508", "508", [wave(500, 0, 200)], fs=360, adc_gain=[10.0], baseline=[0])
write("flac516", "516", [wave(9000, 0, 3000), wave(9000, 1, 3000)])
write("flac524", "524", [wave(300, lead_idx, 3_000_000) for lead_idx in range(3)], sig_name=["I", "II", "III"],
      adc_gain=[1000.0] * 3, baseline=[0] * 3, units=["mV"] * 3)
# Two samples a frame, extremes, an invalid sample, and a constant.
steps = np.array([-32767, 32767, 0, -32768, 1, -1, 12345, -12345], dtype="int64")
wfdb.wrsamp("flacx2", fs=100, units=["mV"] * 2, sig_name=["a", "b"], fmt=["516"] * 2, adc_gain=[200.0] * 2,
            baseline=[0] * 2, e_d_signal=[np.tile(steps, 5), np.full(40, 7, dtype="int64")], samps_per_frame=[2, 2])
expect("flacx2")

# Segments of fixed layout: another gain in the second one. (wfdb-python fails at a gap here.)
for name, gain, step in [("fixed_a", 200.0, 1), ("fixed_b", 100.0, -1)]:
    write(name, "16", [np.arange(6) * step, np.arange(6) * 2 * step + 3], adc_gain=[gain, 200.0], baseline=[10, 0])
with open("fixed.hea", "w") as file:
    file.write("fixed/2 2 360 12\nfixed_a 6\nfixed_b 6\n")
# Of variable layout: signals come, go and change places.
with open("layout.hea", "w") as file:
    file.write("layout 3 360 0\n~ 0 400(0)/mV 12 0 0 0 0 II\n~ 0 200(50)/mV 12 0 0 0 0 V\n~ 0 2/mmHg 12 0 0 0 0 ABP\n")
write("var_a", "16", [[5, -5, 32767, -32768], [8, 9, 10, 11]], sig_name=["V", "II"], adc_gain=[200.0, 400.0],
      baseline=[50, 0])
write("var_b", "212", [[1, 2, 3, -2048, 5]], sig_name=["II"], adc_gain=[100.0], baseline=[-20])
write("var_c", "16", [[700, 701], [1, 2]], sig_name=["ABP", "V"], units=["mmHg", "mV"], adc_gain=[2.0, 300.0],
      baseline=[0, 7])
with open("variable.hea", "w") as file:
    file.write("variable/6 3 360 17\nlayout 0\nvar_a 4\n~ 3\nvar_b 5\nvar_c 2\n~ 3\n")
for name in ["fixed", "variable"]:
    physical = wfdb.rdrecord(name, physical=True).p_signal
    with open(name + ".expected", "w") as file:
        for column in physical.T:
            file.write(" ".join("-" if np.isnan(value) else repr(float(value)) for value in column) + "\n")
