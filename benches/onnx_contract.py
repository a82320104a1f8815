"""Checks that an ONNX file keeps the contract of ecgpipe: `onnx_contract.py FILE` (needs `pip install onnx onnxruntime`).

Stock ONNX Runtime is given the input `window` alone, then the optional `features` too. Exits with 1 at the first breach.
"""

import json
import sys

import numpy as np
import onnx
import onnxruntime

FORMAT_KEY, SIGNATURE_KEY = "ecgpipe.onnx_format", "ecgpipe.signature"


def expect(condition, text):
    if not condition:
        sys.exit(f"{sys.argv[1]}: {text}")
    print("ok:", text)


def main():
    model = onnx.load(sys.argv[1])
    onnx.checker.check_model(model, full_check=True)
    expect(True, "onnx.checker.check_model(full_check=True) accepts the file")

    metadata = {entry.key: entry.value for entry in model.metadata_props}
    expect(metadata.get(FORMAT_KEY) == "1", f"metadata {FORMAT_KEY} is 1")
    expect(SIGNATURE_KEY in metadata, f"metadata {SIGNATURE_KEY} is there")
    signature = json.loads(metadata[SIGNATURE_KEY])
    window_n, class_n = signature["window_n"], len(signature["class_names"])
    feature_n = len(signature["feature_names"])

    session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
    required = [(value.name, value.shape) for value in session.get_inputs()]
    expect(required == [("window", ["batch", 1, window_n])], f"the only required input is window (batch, 1, {window_n})")
    expect([value.name for value in session.get_outputs()] == ["probabilities"], "the output is probabilities")

    rng = np.random.default_rng(1)
    for batch_n in (1, 7):
        window = rng.random((batch_n, 1, window_n), dtype=np.float32)
        (alone,) = session.run(["probabilities"], {"window": window})
        expect(alone.shape == (batch_n, class_n), f"window {window.shape} gives probabilities {alone.shape}")
        expect(np.abs(alone.sum(axis=1) - 1).max() < 1e-5, "rows sum to 1")
        one_by_one = np.concatenate([session.run(None, {"window": row[None]})[0] for row in window])
        expect(np.abs(one_by_one - alone).max() < 1e-5, "a batch gives what its beats give alone")
        if feature_n:
            features = rng.random((batch_n, feature_n), dtype=np.float32)
            absent = np.concatenate([features, np.zeros((batch_n, 1), np.float32)], axis=1)
            (masked,) = session.run(None, {"window": window, "features": absent})
            expect(np.abs(masked - alone).max() < 1e-6, "features with 0 in its last column changes nothing")
            known = np.concatenate([features, np.ones((batch_n, 1), np.float32)], axis=1)
            (both,) = session.run(None, {"window": window, "features": known})
            expect(both.shape == alone.shape and np.isfinite(both).all(), "features with 1 in its last column is taken")
            expect(np.abs(both - alone).max() > 1e-6, "and changes the probabilities")


main()
