"""Plots of a study, each as PNG, SVG and PDF."""
