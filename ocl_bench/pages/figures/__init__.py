"""Figures for papers: boards and runs as PDF, SVG and PNG."""
