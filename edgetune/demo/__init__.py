"""The demo: the main job from end to end, on data that comes with the package."""
