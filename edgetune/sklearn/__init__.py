"""scikit-learn estimators for texts, on the backbone of a bundle. No PyTorch.

from edgetune.sklearn import TextClassifier

TextClassifier("bundle").fit(texts, labels).predict(["where is my money?"])

They work in `Pipeline`, `GridSearchCV`, `cross_val_predict` and so on. X is a list, array or column of texts or, for
pairs of texts, a list of pairs or two columns. They read the bundle and never write to it.
"""

from __future__ import annotations

from edgetune_runtime.errors import needs

with needs("fit"):
    import sklearn  # noqa: F401 - said in one line, before any module here imports it

from edgetune.sklearn.classifier import TextClassifier
from edgetune.sklearn.features import TextFeatures
from edgetune.sklearn.reading import InputError
from edgetune.sklearn.regressor import TextRegressor

__all__ = ["InputError", "TextClassifier", "TextFeatures", "TextRegressor"]
