"""Removes baseline wander with two median filters, one after the other (de Chazal et al. 2004); see README.md.

Run by ecgpipe as `python3 median_filter.py job.json`; the protocol is in docs/plugins.md.
"""

import json
import sys
import traceback

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq


class Failure(Exception):
    """What the user is told when the work cannot be done."""

    def __init__(self, message, help=None):
        super().__init__(message)
        self.help = help


class Quantiles:
    """Finds the k-th smallest of any stretch of `values` (integers): a wavelet matrix (Claude, Navarro and Ordóñez 2015).

    It costs a few array operations a bit of the range of values, whatever the width of the stretches: a sliding median
    over a whole lead needs no loop over its samples.
    """

    def __init__(self, values):
        self.lowest = int(values.min())
        codes = values.astype(np.int64) - self.lowest
        self.levels = []
        for bit in reversed(range(int(codes.max()).bit_length())):
            ones = (codes >> bit) & 1 == 1
            # zeros_before[i]: how many of the first i codes have a 0 here.
            zeros_before = np.concatenate(([0], np.cumsum(~ones, dtype=np.int32)), dtype=np.int32)
            self.levels.append((bit, zeros_before))
            codes = np.concatenate((codes[~ones], codes[ones]))

    def kth(self, begin, end, k):
        """The k-th smallest (from 0) of values[begin:end], for arrays of begins, ends and ks."""
        found = np.full(len(k), self.lowest, dtype=np.int64)
        for bit, zeros_before in self.levels:
            zero_n = zeros_before[-1]
            begin_zeros, end_zeros = zeros_before[begin], zeros_before[end]
            inside_n = end_zeros - begin_zeros
            one = k >= inside_n
            found += one.astype(np.int64) << bit
            k = np.where(one, k - inside_n, k)
            begin = np.where(one, begin - begin_zeros + zero_n, begin_zeros)
            end = np.where(one, end - end_zeros + zero_n, end_zeros)
        return found


def sliding_median(values, positions, half_n):
    """The median of the values at most `half_n` positions away from each value; of two middle ones the lower.

    `positions` ascends and has a gap where a sample is missing; at the ends of the record the window is cut.
    """
    begin = np.searchsorted(positions, positions - half_n, side="left").astype(np.int32)
    end = np.searchsorted(positions, positions + half_n, side="right").astype(np.int32)
    return Quantiles(values).kth(begin, end, (end - begin - 1) >> 1)


def half_width_n(width_ms, sampling_frequency_hz):
    """Samples on either side of the middle one."""
    return int(width_ms * sampling_frequency_hz / 2000)


def remove_baseline(samples, baseline_adu, halves_n):
    """One lead, a masked array of ADC values, so that its estimated baseline lies at `baseline_adu`."""
    positions = np.flatnonzero(~np.ma.getmaskarray(samples))
    if len(positions) == 0:
        return samples
    values = samples.data[positions].astype(np.int64)
    estimate = values
    for half_n in halves_n:
        estimate = sliding_median(estimate, positions, half_n)
    corrected = values - estimate + baseline_adu
    # The smallest integer of 32 bits stands for a missing sample inside ecgpipe.
    if corrected.min() <= -(2**31) or corrected.max() >= 2**31:
        raise Failure("a sample less its baseline does not fit 32 bits", "check the gain and baseline of this lead")
    result = samples.copy()
    result.data[positions] = corrected
    return result


def run(job):
    """Does the work of one job."""
    params = job["params"]
    table = pq.read_table(job["inputs"]["signals"]["path"])
    metadata = table.schema.metadata
    leads = json.loads(metadata[b"leads"])
    sampling_frequency_hz = json.loads(metadata[b"sampling_frequency_hz"])
    halves_n = [half_width_n(params[name], sampling_frequency_hz) for name in ("first_ms", "second_ms")]
    columns = []
    for idx, lead in enumerate(leads):
        column = table.column(f"lead_{idx}").combine_chunks()
        missing = column.is_null().to_numpy(zero_copy_only=False)
        samples = np.ma.array(column.fill_null(0).to_numpy().copy(), mask=missing)
        try:
            corrected = remove_baseline(samples, lead["baseline_adu"], halves_n)
        except Failure as failure:
            raise Failure(f"lead {lead['name']}: {failure}", failure.help) from failure
        columns.append(pa.array(corrected.data, type=pa.int32(), mask=missing))
        print(json.dumps({"event": "progress", "done": idx + 1, "total": len(leads), "unit": "leads"}), flush=True)
    # Names, gains, sampling frequency, patient and comments are in the metadata and stay as they are.
    names = [f"lead_{idx}" for idx in range(len(leads))]
    result = pa.Table.from_arrays(columns, names=names).replace_schema_metadata(metadata)
    pq.write_table(result, job["outputs"]["signals"]["path"], compression="none")


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        job = json.load(file)
    result, status = {"format": 1, "metrics": [], "warnings": []}, 0
    try:
        run(job)
    except Failure as failure:
        result, status = {"format": 1, "error": {"message": str(failure), "help": failure.help, "record": job["record"]}}, 1
    except Exception as error:
        traceback.print_exc()
        result, status = {"format": 1, "error": {"message": f"{type(error).__name__}: {error}"}}, 1
    with open("result.json", "w", encoding="utf-8") as file:
        json.dump(result, file)
    return status


if __name__ == "__main__":
    sys.exit(main())
