"""Makes the files in fixtures/ with pyedflib, numpy and pandas-like text, tools independent of this crate.

    pip install pyEDFlib==0.1.42 numpy==2.4.6 wfdb==4.3.1 && python make_fixtures.py

The expected values stand in recordings.rs; `python make_fixtures.py --read FILE` prints what pyedflib reads from a file.
"""

import os
import sys
from datetime import datetime

import numpy as np
import pyedflib


def wave(n, step, top):
    """Whole numbers that no two signals share: a saw tooth."""
    return (np.arange(n, dtype=np.int64) * step) % (2 * top + 1) - top


def signal(label, hz, units, physical, digital):
    return {
        "label": label,
        "dimension": units,
        "sample_frequency": hz,
        "physical_min": physical[0],
        "physical_max": physical[1],
        "digital_min": digital[0],
        "digital_max": digital[1],
        "transducer": "AgAgCl electrode",
        "prefilter": "HP:0.05Hz LP:100Hz",
    }


def write(name, file_type, signals, columns, record_s=1, annotations=(), **head):
    writer = pyedflib.EdfWriter(name, len(signals), file_type=file_type)
    writer.setSignalHeaders(signals)
    if record_s != 1:
        writer.setDatarecordDuration(record_s)
    writer.setStartdatetime(head.get("start", datetime(2002, 3, 2, 23, 59, 58)))
    writer.setPatientCode(head.get("patient", "P-7"))
    writer.setRecordingAdditional("ward_3")
    writer.writeSamples([column.astype(np.int32) for column in columns], digital=True)
    for onset, duration, text in annotations:
        writer.writeAnnotation(onset, duration, text)
    writer.close()


def small_range(bits):
    top = 1 << (bits - 1)
    return (-top, top - 1)


def interrupt(source, name, onsets):
    """EDF+C as EDF+D: pyedflib does not write gaps, so that the records' onsets are exchanged for others of the same length."""
    data = bytearray(open(source, "rb").read())
    data[192:197] = b"EDF+D"
    header_n, record_n, signal_n = int(data[184:192]), int(data[236:244]), int(data[252:256])
    counts = [int(data[256 + signal_n * 216 + i * 8 :][:8]) for i in range(signal_n)]
    labels = [bytes(data[256 + i * 16 :][:16]).strip() for i in range(signal_n)]
    place = labels.index(b"EDF Annotations")
    size = 2 * sum(counts)
    for record, onset in zip(range(record_n), onsets):
        at = header_n + record * size + 2 * sum(counts[:place])
        end = data.index(b"\x14\x14\0", at)
        rest = bytes(data[end : at + 2 * counts[place]])
        text = onset.encode() + rest
        assert not text[2 * counts[place] :].strip(b"\0")
        data[at : at + 2 * counts[place]] = text[: 2 * counts[place]].ljust(2 * counts[place], b"\0")
    open(name, "wb").write(data)


def make():
    ecg = signal("ECG II", 250, "mV", (-5.0, 5.0), (-2000, 2000))
    write("plain.edf", pyedflib.FILETYPE_EDF, [ecg], [wave(750, 37, 1999)])

    # Two ECG leads, and a slow signal: 5 samples a frame of 50 Hz.
    slow = signal("SpO2", 50, "%", (0.0, 100.0), (0, 1000))
    leads = [signal("ECG V5", 250, "uV", (-3276.8, 3276.7), small_range(16)), ecg, slow]
    columns = [wave(1000, 211, 32767), wave(1000, 37, 1999), np.arange(200) % 1001]
    marks = [(0.5, -1, "lights off"), (1.25, 2.5, "Apnoe \u00fc"), (4.0, -1, "end"), (9.0, -1, "after the end")]
    write("plus.edf", pyedflib.FILETYPE_EDFPLUS, leads, columns, annotations=marks)

    # The same with gaps: records at 0.5, 1.5, 4.5 and 5.5 s.
    interrupt("plus.edf", "gaps.edf", ["+0.5", "+1.5", "+4.5", "+5.5"])

    # 24 bits, records of a tenth of a second.
    wide = signal("A1", 2000, "uV", (-262144.0, 262143.0), small_range(24))
    write("plus.bdf", pyedflib.FILETYPE_BDFPLUS, [wide], [wave(600, 100_003, 8_388_607)], record_s=0.1)

    # NumPy: the same numbers in both layouts, one lead, ADC units.
    millivolts = np.stack([wave(300, 37, 1999), wave(300, 211, 1500)], axis=1) / 200.0
    millivolts[7, 1] = np.nan
    np.save("rows.npy", millivolts.astype(np.float32))
    np.save("columns.npy", np.ascontiguousarray(millivolts.T))
    np.save("one.npy", wave(300, 37, 1999).astype(np.int16))

    # Text: as pandas, as rdsamp -c -pe, and as a spreadsheet in Germany writes it.
    rows = list(enumerate(millivolts))
    number = lambda value: "" if np.isnan(value) else repr(float(value))
    text = ",MLII (mV),V5 (mV)\n" + "".join(f"{i},{number(a)},{number(b)}\n" for i, (a, b) in rows)
    open("pandas.csv", "w").write(text)
    clock = lambda i: f"{int(i / 360 // 60)}:{i / 360 % 60:06.3f}"
    dash = lambda value: "-" if np.isnan(value) else f"{value:.3f}"
    text = "'Elapsed time','MLII','V5'\n'hh:mm:ss.mmm','mV','mV'\n"
    open("rdsamp.csv", "w").write(text + "".join(f"'{clock(i)}',{dash(a)},{dash(b)}\n" for i, (a, b) in rows))
    comma = lambda value: "NaN" if np.isnan(value) else f"{value:.3f}".replace(".", ",")
    text = "# a comment\r\nTime [ms];MLII [mV];V5 [uV]\r\n"
    body = "".join(f"{comma(i * 1000 / 360)};{comma(a)};{comma(b)}\r\n" for i, (a, b) in rows)
    open("german.csv", "wb").write((text + body).encode())


def read(path):
    with pyedflib.EdfReader(path) as reader:
        print(reader.getStartdatetime(), reader.getSignalLabels(), reader.datarecords_in_file)
        for i in range(reader.signals_in_file):
            digital = reader.readSignal(i, digital=True)
            physical = reader.readSignal(i)
            print(reader.getLabel(i), reader.getSampleFrequency(i), len(digital), int(digital.sum()), digital[:4], digital[-2:], physical[:3])
        print([list(column) for column in reader.readAnnotations()])


if __name__ == "__main__":
    os.chdir(os.path.join(os.path.dirname(os.path.abspath(__file__)), "fixtures"))
    if sys.argv[1:2] == ["--read"]:
        read(sys.argv[2])
    else:
        make()
