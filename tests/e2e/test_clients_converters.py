# SPDX-License-Identifier: Apache-2.0
"""Models of other libraries, made by their own converters, served, asked by tritonclient, and compared number by number with
what the library itself predicts."""

import functools
import warnings

import lightgbm
import numpy as np
import onnx
import onnxmltools
import onnxruntime
import pytest
import xgboost
from onnxmltools.convert.common.data_types import FloatTensorType as Floats
from onnxruntime.quantization import CalibrationDataReader, quantize_static
from serving import ORACLE, linear
from skl2onnx import convert_sklearn, to_onnx
from skl2onnx.common.data_types import StringTensorType
from sklearn.ensemble import GradientBoostingRegressor, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from test_clients import Client, server  # noqa: F401 (the fixture)

RANDOM = np.random.default_rng(7)
X = RANDOM.standard_normal((200, 4)).astype(np.float32)
CLASS = (X[:, 0] + X[:, 1] > 0).astype(int) + (X[:, 2] > 1)
VALUE = 3 * X[:, 0] - X[:, 1] * X[:, 3]
ASKED = X[:17]


def classifier(zipmap):
    made = make_pipeline(StandardScaler(), RandomForestClassifier(10, max_depth=4, random_state=0)).fit(X, CLASS)
    model = to_onnx(made, X[:1], options={id(made): {"zipmap": zipmap}}, target_opset=17)
    label, probability = (output.name for output in model.graph.output)
    return model, {"X": ASKED}, {label: made.predict(ASKED), probability: made.predict_proba(ASKED)}


def sklearn_regressor():
    made = make_pipeline(StandardScaler(), GradientBoostingRegressor(n_estimators=20, random_state=0)).fit(X, VALUE)
    return to_onnx(made, X[:1], target_opset=17), {"X": ASKED}, {"variable": made.predict(ASKED)}


def sklearn_texts():
    words = RANDOM.choice(["Ulm", "Köln", "東京", "x y"], (60, 2)).astype(object)
    made = make_pipeline(OneHotEncoder(handle_unknown="ignore"), LogisticRegression()).fit(words, words[:, 0] < words[:, 1])
    model = convert_sklearn(made, initial_types=[("place", StringTensorType([None, 2]))], options={"zipmap": False},
                            target_opset=17)
    asked = np.array([["Ulm", "Köln"], ["東京", "x y"], ["unknown", ""]], dtype=object)
    return model, {"place": asked}, {"probabilities": made.predict_proba(asked)}


def lightgbm_regressor():
    made = lightgbm.LGBMRegressor(n_estimators=20, verbose=-1).fit(X, VALUE)
    model = onnxmltools.convert_lightgbm(made, initial_types=[("x", Floats([None, 4]))], target_opset=15)
    return model, {"x": ASKED}, {"variable": made.predict(ASKED)}


def xgboost_classifier():
    made = xgboost.XGBClassifier(n_estimators=20, max_depth=3, random_state=0).fit(X, CLASS)
    model = onnxmltools.convert_xgboost(made, initial_types=[("x", Floats([None, 4]))], target_opset=15)
    return model, {"x": ASKED}, {"label": made.predict(ASKED), "probabilities": made.predict_proba(ASKED)}


class Calibration(CalibrationDataReader):
    def __init__(self):
        self.rows = iter(X[:, None])

    def get_next(self):
        row = next(self.rows, None)
        return None if row is None else {"x": row}


def quantised(folder):
    model, w, b = linear()
    onnx.save(model, folder / "float.onnx")
    quantize_static(folder / "float.onnx", folder / "int8.onnx", Calibration())
    model = onnx.load(folder / "int8.onnx")
    y, = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": ASKED})
    assert 0 < np.abs(y - (ASKED @ w + b)).max() < 0.2  # it is quantised, and still the same model
    return model, {"x": ASKED}, {"y": y}


MADE = {"sklearn": functools.partial(classifier, False), "sklearn-zipmap": functools.partial(classifier, True),
        "sklearn-regressor": sklearn_regressor, "sklearn-texts": sklearn_texts, "lightgbm": lightgbm_regressor,
        "xgboost": xgboost_classifier, "quantised": quantised}
if ORACLE:  # Triton's Python backend has no type for maps
    del MADE["sklearn-zipmap"]


@pytest.fixture(scope="module", params=MADE)
def made(request, server, tmp_path_factory):  # noqa: F811
    """One converted model, deployed: its name, what it is asked, what the library predicts."""
    more = [tmp_path_factory.mktemp("q")] if request.param == "quantised" else []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model, asked, wanted = MADE[request.param](*more)
    server.deploy(request.param, model)
    return request.param, asked, wanted


@pytest.mark.parametrize("how", ["json", "binary", "grpc"])
def test_answers_are_the_librarys(server, made, how):  # noqa: F811
    name, asked, wanted = made
    client = Client(server, "grpc" if how == "grpc" else "http")
    kinds = {np.dtype(np.float32): "FP32", np.dtype(object): "BYTES"}
    got = client.infer(name, [client.input(x, kinds[value.dtype], value, how == "binary") for x, value in asked.items()],
                       outputs=[client.output(y, how == "binary") for y in wanted])
    for y, value in wanted.items():
        answer = got.as_numpy(y)
        assert answer.shape[0] == len(value)
        if value.dtype.kind == "f":
            np.testing.assert_allclose(answer.reshape(value.shape), value, rtol=1e-5, atol=2e-6)
        else:
            assert answer.reshape(value.shape).tolist() == value.tolist()


@pytest.mark.skipif(bool(ORACLE), reason="Triton's Python backend has no type for maps")
@pytest.mark.parametrize("how", ["http", "grpc"])
def test_classes_have_their_names(server, how):  # noqa: F811
    names = np.array(["Ulm", "Köln", "東京"])[CLASS]
    made = LogisticRegression().fit(X, names)
    server.deploy("named", to_onnx(made, X[:1], options={"zipmap": True}, target_opset=17))
    client = Client(server, how)
    got = client.infer("named", [client.input("X", "FP32", ASKED)],
                       outputs=[client.output("output_probability", class_count=2)]).as_numpy("output_probability")
    assert got.shape == (len(ASKED), 2)
    for row, chances in zip(got, made.predict_proba(ASKED)):
        value, place, label = row[0].decode().split(":")
        assert (int(place), label) == (chances.argmax(), made.classes_[chances.argmax()])
        assert float(value) == pytest.approx(chances.max(), abs=2e-6)
