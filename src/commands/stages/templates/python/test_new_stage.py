"""Runs new_stage as ecgpipe does, on a small Parquet file: `python3 test_new_stage.py`, or pytest."""

import json
import pathlib
import subprocess
import sys
import tempfile
import unittest

import pyarrow as pa
import pyarrow.parquet as pq

PROGRAM = pathlib.Path(__file__).resolve().parent / "new_stage.py"
METADATA = {
    "ecgpipe.kind": "signals v1",
    "record": '"100"',
    "patient": '"100"',
    "sampling_frequency_hz": "360.0",
    "comments": "[]",
    "leads": json.dumps([{"name": "MLII", "units": "mV", "gain_adu_per_unit": 200.0, "baseline_adu": 1024}]),
    "unit.lead_0": "adu",
}


def call(samples, params):
    """The exit status, result.json and the output's table, if there is one, of one job."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        (folder / "inputs").mkdir()
        (folder / "outputs").mkdir()
        lead = pa.array(samples, type=pa.int32())
        table = pa.Table.from_arrays([lead], names=["lead_0"]).replace_schema_metadata(METADATA)
        pq.write_table(table, folder / "inputs/signals.parquet")
        job = {
            "format": 1,
            "stage": "new_stage",
            "params": params,
            "record": "100",
            "seed": None,
            "threads": 1,
            "inputs": {"signals": {"kind": "signals", "version": 1, "path": "inputs/signals.parquet"}},
            "files": [],
            "outputs": {
                "signals": {"kind": "signals", "version": 1, "path": "outputs/signals.parquet", "optional": False}
            },
        }
        (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
        done = subprocess.run([sys.executable, str(PROGRAM), "job.json"], cwd=folder, check=False)
        result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        output = folder / "outputs/signals.parquet"
        return done.returncode, result, pq.read_table(output) if output.exists() else None


class NewStage(unittest.TestCase):
    def test_scales_about_the_baseline_and_keeps_what_is_missing(self):
        status, result, table = call([1024, 1124, None, 924], {"factor": 2})
        self.assertEqual((status, result["format"]), (0, 1))
        self.assertEqual(table.column("lead_0").to_pylist(), [1024, 1224, None, 824])
        self.assertEqual(table.schema.metadata[b"record"], b'"100"')

    def test_says_what_is_wrong(self):
        status, result, table = call([2**30], {"factor": 100})
        self.assertEqual(status, 1)
        self.assertIn("MLII", result["error"]["message"])
        self.assertIsNone(table)


if __name__ == "__main__":
    unittest.main()
