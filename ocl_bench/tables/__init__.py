"""Pictures: overlays of masks and curves of training. matplotlib is imported when a picture is drawn."""
