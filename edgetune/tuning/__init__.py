"""Measuring, on the CPU at hand, which of the equivalent ways to run a bundle's graphs is fastest there."""
