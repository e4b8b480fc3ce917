"""Fit tasks to labelled texts without PyTorch: a head on a bundle's features, its temperature and its thresholds.

`head.fit_head` fits a head; `fit.fit` makes a task with the engine that will answer. The training in
`edgetune.training` uses the same targets, measures and calibration. A head needs scikit-learn, the extra `[fit]`.
"""
