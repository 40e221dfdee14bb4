"""Masks, detections and videos that exist already, through the same corridor."""
